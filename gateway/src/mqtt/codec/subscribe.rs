//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).

use super::malformed::Malformed;
use super::properties::{self, Allowed, Property};
use super::reader::Reader;
use super::{Version, topic};

/// One SUBSCRIBE, checked to the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscribe<'a> {
    pub(crate) id: u16,
    /// The client gave a subscription identifier.
    pub(crate) has_subscription_id: bool,
    filters: Reader<'a>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) filter: &'a str,
    /// The client does not want its own publishes back.
    pub(crate) no_local: bool,
    /// Deliveries keep the retain flag of the publish.
    pub(crate) retain_as_published: bool,
}

impl<'a> Subscribe<'a> {
    /// Decodes the body of a SUBSCRIBE and checks every filter in it.
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let id = reader.packet_id()?;
        let mut has_subscription_id = false;
        if version == Version::V5 {
            properties::read(&mut reader, Allowed::SUBSCRIBE, |property| {
                has_subscription_id |= matches!(property, Property::SubscriptionId(_));
            })?;
        }
        let filters = reader;
        if reader.is_empty() {
            return Err(Malformed::NoFilter);
        }
        while !reader.is_empty() {
            request(&mut reader, version)?;
        }
        Ok(Self { id, has_subscription_id, filters })
    }

    /// The filters, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Request<'a>> + use<'a> {
        let mut reader = self.filters;
        // They were checked by `decode`; options of 3.1.1 are valid options of 5 as well.
        std::iter::from_fn(move || request(&mut reader, Version::V5).ok())
    }
}

fn request<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Request<'a>, Malformed> {
    let filter = reader.string()?;
    let options = reader.u8()?;
    if !topic::is_filter(filter) {
        return Err(Malformed::TopicFilter);
    }
    let reserved = if version == Version::V3 { 0xfc } else { 0xc0 };
    if options & reserved != 0 || options & 0x03 == 3 || options & 0x30 == 0x30 {
        return Err(Malformed::SubscriptionOptions);
    }
    let no_local = options & 0x04 != 0;
    if no_local && filter.starts_with("$share/") {
        return Err(Malformed::Unexpected);
    }
    Ok(Request { filter, no_local, retain_as_published: options & 0x08 != 0 })
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
            if !topic::is_filter(reader.string()?) {
                return Err(Malformed::TopicFilter);
            }
        }
        Ok(Self { id, filters })
    }

    /// The filters, in order.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = self.filters;
        std::iter::from_fn(move || reader.string().ok())
    }
}
