//! The clouds of Azure, and the services in them that take tokens.

/// One of Azure's clouds. They share nothing, neither names nor accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cloud {
    /// The one that nearly everybody uses.
    #[default]
    Public,
    /// For the government of the United States.
    UsGov,
    /// Operated by 21Vianet in China.
    China,
}

/// The service that a token is for: its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience(String);

// === impl Cloud ===

impl Cloud {
    /// The names in the configuration.
    pub(super) const NAMES: &[&str] = &["public", "usgov", "china"];

    /// The cloud with this name; the public one for any other.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "usgov" => Self::UsGov,
            "china" => Self::China,
            _ => Self::Public,
        }
    }

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::UsGov => "usgov",
            Self::China => "china",
        }
    }

    /// Where Microsoft Entra issues tokens.
    #[must_use]
    pub const fn authority_host(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGov => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// How the hosts of Event Hubs and Service Bus namespaces end, with the dot in front.
    #[must_use]
    pub const fn namespace_suffix(self) -> &'static str {
        match self {
            Self::Public => ".servicebus.windows.net",
            Self::UsGov => ".servicebus.usgovcloudapi.net",
            Self::China => ".servicebus.chinacloudapi.cn",
        }
    }

    /// The host that tokens for Event Grid are for.
    #[must_use]
    pub const fn event_grid_host(self) -> &'static str {
        match self {
            Self::Public => "eventgrid.azure.net",
            Self::UsGov => "eventgrid.azure.us",
            Self::China => "eventgrid.azure.cn",
        }
    }

    /// The host of a namespace given as `NAME` or as its whole host; `None` if it is no namespace of this cloud.
    #[must_use]
    pub fn namespace_host(self, text: &str) -> Option<String> {
        let text = text.to_ascii_lowercase();
        let suffix = self.namespace_suffix();
        let name = text.strip_suffix(suffix).unwrap_or(&text);
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (plain && !name.is_empty()).then(|| format!("{name}{suffix}"))
    }
}

// === impl Audience ===

impl Audience {
    /// An Event Hubs or Service Bus namespace, by its host.
    #[must_use]
    pub fn namespace(host: &str) -> Self {
        Self(host.to_owned())
    }

    /// Event Grid, of which all topics of a cloud take the same tokens.
    #[must_use]
    pub fn event_grid(cloud: Cloud) -> Self {
        Self(cloud.event_grid_host().to_owned())
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0
    }

    /// What a managed identity is asked for.
    pub(super) fn resource(&self) -> String {
        format!("https://{}", self.0)
    }

    /// What a tenant's token endpoint is asked for.
    pub(super) fn scope(&self) -> String {
        format!("https://{}/.default", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cloud: Cloud, text: &str, expected: Option<&str>) {
        assert_eq!(cloud.namespace_host(text).as_deref(), expected, "{text}");
    }

    #[test]
    fn a_namespace_is_given_short_or_whole_and_belongs_to_its_cloud() {
        check(Cloud::Public, "contoso", Some("contoso.servicebus.windows.net"));
        check(Cloud::Public, "Contoso.ServiceBus.Windows.net", Some("contoso.servicebus.windows.net"));
        check(Cloud::UsGov, "contoso", Some("contoso.servicebus.usgovcloudapi.net"));
        check(Cloud::UsGov, "contoso.servicebus.windows.net", None);
        check(
            Cloud::China,
            "contoso.servicebus.chinacloudapi.cn",
            Some("contoso.servicebus.chinacloudapi.cn"),
        );
        check(Cloud::Public, "127.0.0.1", None);
        check(Cloud::Public, "", None);
        check(Cloud::Public, ".servicebus.windows.net", None);
        check(Cloud::Public, "contoso/x", None);
    }

    #[test]
    fn event_grid_takes_tokens_for_a_host_of_its_cloud() {
        let audience = Audience::event_grid(Cloud::Public);
        assert_eq!(audience.resource(), "https://eventgrid.azure.net");
        assert_eq!(audience.scope(), "https://eventgrid.azure.net/.default");
        assert_eq!(Audience::event_grid(Cloud::UsGov).host(), "eventgrid.azure.us");
        assert_eq!(Audience::event_grid(Cloud::China).host(), "eventgrid.azure.cn");
    }

    #[test]
    fn names_and_clouds_fit() {
        for name in Cloud::NAMES {
            assert_eq!(Cloud::named(name).name(), *name);
        }
    }
}
