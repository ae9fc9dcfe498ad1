//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).

use super::malformed::Malformed;
use super::properties::{self, Allowed, Property};
use super::reader::Reader;
use super::{Qos, Version, topic};

/// One SUBSCRIBE, checked to the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscribe<'a> {
    pub(crate) id: u16,
    /// What deliveries of these subscriptions carry, if the client gave it; never zero.
    pub(crate) subscription_id: Option<u32>,
    version: Version,
    filters: Reader<'a>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) filter: &'a str,
    /// The highest level of deliveries.
    pub(crate) qos: Qos,
    /// The client does not want its own publishes back.
    pub(crate) no_local: bool,
    /// Deliveries keep the retain flag of the publish.
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

/// Whether a new subscription is sent the retained messages that match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    /// Always; the only way of 3.1.1.
    Send,
    /// Unless the client had the subscription already.
    SendIfNew,
    Never,
}

impl<'a> Subscribe<'a> {
    /// Decodes the body of a SUBSCRIBE and checks every filter in it.
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let id = reader.packet_id()?;
        let mut subscription_id = None;
        if version == Version::V5 {
            properties::read(&mut reader, Allowed::SUBSCRIBE, |property| {
                if let Property::SubscriptionId(id) = property {
                    subscription_id = Some(id);
                }
            })?;
        }
        let filters = reader;
        if reader.is_empty() {
            return Err(Malformed::NoFilter);
        }
        while !reader.is_empty() {
            request(&mut reader, version)?;
        }
        Ok(Self { id, subscription_id, version, filters })
    }

    /// The filters, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Request<'a>> + use<'a> {
        let (mut reader, version) = (self.filters, self.version);
        // They were checked by `decode`.
        std::iter::from_fn(move || request(&mut reader, version).ok())
    }
}

fn request<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Request<'a>, Malformed> {
    let filter = reader.string()?;
    let options = reader.u8()?;
    let shared = check_filter(filter, version)?;
    let reserved = if version == Version::V3 { 0xfc } else { 0xc0 };
    if options & reserved != 0 {
        return Err(Malformed::SubscriptionOptions);
    }
    let qos = Qos::from_bits(options).map_err(|_| Malformed::SubscriptionValue)?;
    let retain_handling = match options >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::Never,
        _ => return Err(Malformed::SubscriptionValue),
    };
    let no_local = options & 0x04 != 0;
    if no_local && shared {
        return Err(Malformed::SharedNoLocal);
    }
    Ok(Request { filter, qos, no_local, retain_as_published: options & 0x08 != 0, retain_handling })
}

/// Checks a filter; tells whether it is a shared one, which 3.1.1 does not know.
fn check_filter(filter: &str, version: Version) -> Result<bool, Malformed> {
    if !topic::is_filter(filter) {
        return Err(Malformed::TopicFilter);
    }
    match version {
        Version::V3 => Ok(false),
        Version::V5 => topic::shared(filter).transpose().map(|shared| shared.is_some()),
    }
}

/// One UNSUBSCRIBE, checked to the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsubscribe<'a> {
    pub(crate) id: u16,
    filters: Reader<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// Decodes the body of an UNSUBSCRIBE and checks every filter in it.
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let id = reader.packet_id()?;
        if version == Version::V5 {
            properties::read(&mut reader, Allowed::UNSUBSCRIBE, |_| {})?;
        }
        let filters = reader;
        if reader.is_empty() {
            return Err(Malformed::NoFilter);
        }
        while !reader.is_empty() {
            check_filter(reader.string()?, version)?;
        }
        Ok(Self { id, filters })
    }

    /// The filters, in order.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = self.filters;
        std::iter::from_fn(move || reader.string().ok())
    }
}
