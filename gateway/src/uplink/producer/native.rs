//! Handing records to librdkafka through its C interface: the only unsafe code of the gateway.
//!
//! The safe wrapper looks the topic up by its name and makes a C string of it for every record. Here the topic's
//! handle is kept. Everything else, reports included, stays with the safe wrapper.

#![expect(
    unsafe_code,
    reason = "the safe wrapper of librdkafka has no topic handles; measured in docs/performance.md"
)]

use std::cell::RefCell;
use std::ffi::CString;
use std::ops::Deref;
use std::os::raw::c_void;
use std::ptr::{self, NonNull};

use rdkafka::bindings as library;
use rdkafka::bindings::rd_kafka_vu_s__bindgen_ty_1 as Value;
use rdkafka::bindings::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 as Memory;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::util::IntoOpaque;

use super::Outgoing;
use crate::uplink::headers::Headers;

/// A producer with the handles of the topics it has sent to.
pub(super) struct Native<C: ProducerContext<DeliveryOpaque = usize>> {
    // Before the producer, which must outlive them.
    topics: RefCell<Vec<Topic>>,
    producer: BaseProducer<C>,
}

/// A topic's handle. It belongs to the producer beside which it stands in [`Native`].
struct Topic {
    name: Box<str>,
    handle: NonNull<library::rd_kafka_topic_t>,
}

/// Headers that are not yet given to a record.
struct Taken(NonNull<library::rd_kafka_headers_t>);

// SAFETY: librdkafka's objects may be used from any thread; the handle is not tied to the one that made it.
unsafe impl Send for Topic {}

impl<C: ProducerContext<DeliveryOpaque = usize>> Native<C> {
    pub(super) const fn new(producer: BaseProducer<C>) -> Self {
        Self { topics: RefCell::new(Vec::new()), producer }
    }

    /// Hands a record over; the library copies it. Its slot comes back with the report.
    ///
    /// # Errors
    ///
    /// As the library says; no report will come then.
    pub(super) fn send(&self, record: &Outgoing<'_>) -> Result<(), RDKafkaErrorCode> {
        let topic = self.topic(record.topic)?;
        let headers = Taken::new(record.headers)?;
        let partition = i32::try_from(record.partition).unwrap_or(i32::MAX);
        let timestamp = i64::try_from(record.timestamp_ms).unwrap_or(i64::MAX);
        let values = [
            value(library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, Value { rkt: topic.as_ptr() }),
            value(library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, Value { i32_: partition }),
            value(
                library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                Value { i: library::RD_KAFKA_MSG_F_COPY },
            ),
            value(library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, memory(record.payload)),
            value(library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, memory(record.key)),
            value(library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: record.slot.into_ptr() }),
            value(library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: timestamp }),
            value(library::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS, Value { headers: headers.0.as_ptr() }),
        ];
        // SAFETY: the client lives as long as `self`. Each value's tag names the field of the union that was
        // written. The topic is a handle of this client that is given back after the last call only. Payload and
        // key are slices that live through the call, and the flag says that the library copies them. The opaque
        // value is what the reports of this producer turn back into a `usize`. The headers were made by the library
        // and belong to nothing else; only without an error the record owns them from here on.
        let error = unsafe {
            library::rd_kafka_produceva(self.producer.client().native_ptr(), values.as_ptr(), values.len())
        };
        if error.is_null() {
            std::mem::forget(headers);
            return Ok(());
        }
        // SAFETY: the library gave us this error, which is not null, is used here only and is freed last.
        let (code, fatal) = unsafe {
            let told = (library::rd_kafka_error_code(error), library::rd_kafka_error_is_fatal(error) != 0);
            library::rd_kafka_error_destroy(error);
            told
        };
        // After its end a producer answers with the error that ended it.
        Err(if fatal { RDKafkaErrorCode::Fatal } else { code.into() })
    }

    fn topic(&self, name: &str) -> Result<NonNull<library::rd_kafka_topic_t>, RDKafkaErrorCode> {
        let mut topics = self.topics.borrow_mut();
        if let Some(known) = topics.iter().find(|topic| *topic.name == *name) {
            return Ok(known.handle);
        }
        let text = CString::new(name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the client lives as long as `self`, the name ends in a null byte and is copied, and null in place of
        // a configuration asks for the client's default one.
        let handle = unsafe {
            library::rd_kafka_topic_new(self.producer.client().native_ptr(), text.as_ptr(), ptr::null_mut())
        };
        let handle = NonNull::new(handle).ok_or(RDKafkaErrorCode::InvalidTopic)?;
        topics.push(Topic { name: name.into(), handle });
        Ok(handle)
    }
}

impl<C: ProducerContext<DeliveryOpaque = usize>> Deref for Native<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle came from `rd_kafka_topic_new` and is given back once, here. Its producer still lives:
        // the fields of `Native` are dropped in their order. Records on their way hold references of their own.
        unsafe { library::rd_kafka_topic_destroy(self.handle.as_ptr()) }
    }
}

impl Taken {
    fn new(headers: &Headers) -> Result<Self, RDKafkaErrorCode> {
        let headers = headers.iter();
        // SAFETY: the call takes a number and allocates.
        let made = unsafe { library::rd_kafka_headers_new(headers.len()) };
        let taken = Self(NonNull::new(made).ok_or(RDKafkaErrorCode::Fail)?);
        for (name, value) in headers {
            // SAFETY: name and value are slices that live through the call and are copied; a slice is at most
            // `isize::MAX` bytes long. A length of -1 would ask for a null byte at the end, and is never given.
            let code = unsafe {
                library::rd_kafka_header_add(
                    taken.0.as_ptr(),
                    name.as_ptr().cast(),
                    name.len().cast_signed(),
                    value.as_ptr().cast(),
                    value.len().cast_signed(),
                )
            };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code.into());
            }
        }
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: made by the library, and not given to a record: then this is forgotten instead.
        unsafe { library::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}

const fn value(vtype: library::rd_kafka_vtype_t, u: Value) -> library::rd_kafka_vu_t {
    library::rd_kafka_vu_t { vtype, u }
}

fn memory(bytes: &[u8]) -> Value {
    // The library takes a pointer to what it could change, and with the flag for copying does not.
    Value { mem: Memory { ptr: bytes.as_ptr().cast::<c_void>().cast_mut(), size: bytes.len() } }
}
