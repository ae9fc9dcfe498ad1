//! What became of every record, and of values that were wanted and are no samples: counted by reason, nothing in silence.

/// An enum of plain words, all of them in a row, each with its name for metrics.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$doc])* $word,)+ }

        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$word,)+];
            /// As label values, in the same order.
            pub(crate) const NAMES: &'static [&'static str] = &[$($text,)+];

            /// As a label value.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$word => $text,)+ }
            }
        }
    };
}

words! {
    /// What kind of payload was read.
    Form {
        Json = "json",
        Telemetry = "telemetry",
        Sparkplug = "sparkplug",
    }
}

words! {
    /// Why a payload was not looked into: it is carried, and means nothing to rules.
    Untouched {
        /// No rule wants a metric that this form can have.
        NothingWanted = "nothing_wanted",
        /// A content type that is none of the three forms.
        ContentType = "content_type",
        /// Protobuf of another message, or of one that is not named.
        OtherMessage = "other_message",
        /// A topic of Sparkplug's that carries no measurements: commands and the state of hosts.
        SparkplugTopic = "sparkplug_topic",
        /// Nothing says what it is, and it does not begin as JSON does.
        NotRecognised = "not_recognised",
    }
}

words! {
    /// Why a payload that should be readable gave nothing. No sample of such a message is told.
    Refused {
        /// No bytes where a message is due.
        Empty = "empty",
        /// JSON is UTF-8.
        Utf8 = "utf8",
        /// JSON does not begin with a byte order mark.
        ByteOrderMark = "byte_order_mark",
        /// The JSON ends before it is whole.
        CutShort = "cut_short",
        /// Something follows the JSON.
        Trailing = "trailing",
        /// Arrays and objects nested more than [`super::json::DEPTH_MAX`] deep.
        TooDeep = "too_deep",
        /// `NaN` or `Infinity`, which JSON has not.
        NotANumber = "not_a_number",
        /// Wanted members that repeat, more than [`super::json::REPEATS_MAX`] times.
        Repeats = "repeats",
        /// Any other breach of RFC 8259.
        Syntax = "syntax",
        /// More samples in one message than [`super::SAMPLES_MAX`].
        TooManySamples = "too_many_samples",
        /// Not the protobuf message that it should be.
        Protobuf = "protobuf",
        /// A compressed Sparkplug payload, or a message of an edge node whose last NBIRTH was one.
        Compressed = "compressed",
        /// A Sparkplug message of a node or device without a birth before it.
        Unborn = "unborn",
        /// Its sequence number is not the next: messages are missing before it.
        Gap = "gap",
        /// Its sequence number is that of the message before: told twice.
        Repeated = "repeated",
        /// The table of edge nodes is full.
        NodesFull = "nodes_full",
        /// The edge node has more, or longer, names than are kept.
        NodeTooLarge = "node_too_large",
    }
}

words! {
    /// Why a wanted value of a message that was read is not among its samples.
    LeftOut {
        /// Text, an object or an array; also a number as text.
        NotNumber = "not_number",
        Null = "null",
        /// Beyond what 64 bits of floating point hold, as `1e999`.
        Beyond = "beyond",
        /// An infinity, or not a number.
        NotFinite = "not_finite",
        /// A Sparkplug metric whose alias or name no birth gave, or that cannot be trusted since messages are missing.
        Unknown = "unknown",
        /// A historical Sparkplug metric without a time that can be true.
        Undated = "undated",
    }
}

/// What a record turned out to be. One of these per record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Read(Form),
    Untouched(Untouched),
    Refused(Refused),
}

/// Since the start of the process. Every record is in exactly one of read, untouched and refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    read: [u64; Form::ALL.len()],
    untouched: [u64; Untouched::ALL.len()],
    refused: [u64; Refused::ALL.len()],
    left_out: [u64; LeftOut::ALL.len()],
    /// Numbers told to rules.
    pub(crate) samples: u64,
    /// Times of devices that were unreadable or cannot be true, so that the time of receiving stands for them.
    pub(crate) times_wrong: u64,
    /// NDEATHs of a session before the present one, which say nothing about it.
    pub(crate) stale_deaths: u64,
    /// Wishes for a rebirth that were made.
    pub(crate) rebirths_wanted: u64,
    /// Reasons for a wish within a minute of the last one of that edge node.
    pub(crate) rebirths_held: u64,
    /// Wishes that found the queue full; made again by the next reason.
    pub(crate) rebirths_lost: u64,
}

impl Counts {
    pub(crate) fn read(&self, form: Form) -> u64 {
        self.read.get(form as usize).copied().unwrap_or_default()
    }

    pub(crate) fn untouched(&self, why: Untouched) -> u64 {
        self.untouched.get(why as usize).copied().unwrap_or_default()
    }

    pub(crate) fn refused(&self, why: Refused) -> u64 {
        self.refused.get(why as usize).copied().unwrap_or_default()
    }

    pub(crate) fn left_out(&self, why: LeftOut) -> u64 {
        self.left_out.get(why as usize).copied().unwrap_or_default()
    }

    /// Notes what became of a record.
    pub(super) fn note(&mut self, reading: Reading) {
        let place = match reading {
            Reading::Read(form) => self.read.get_mut(form as usize),
            Reading::Untouched(why) => self.untouched.get_mut(why as usize),
            Reading::Refused(why) => self.refused.get_mut(why as usize),
        };
        add(place, 1);
    }

    pub(super) fn leave_out(&mut self, why: LeftOut, count: u64) {
        add(self.left_out.get_mut(why as usize), count);
    }
}

fn add(place: Option<&mut u64>, count: u64) {
    if let Some(place) = place {
        *place += count;
    }
}
