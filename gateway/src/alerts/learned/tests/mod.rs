//! What the detector does with series that are made up.

mod machine;
