//! Image references as users write them: the full name means the same again.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_images::{Digest, Platform, Reference};

fuzz_target!(|text: &str| {
    let _ = (text.parse::<Platform>(), text.parse::<Digest>());
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse::<Reference>().ok().as_ref(), Some(&reference), "{text:?}");
    assert_eq!(reference.familiar().parse::<Reference>().ok().as_ref(), Some(&reference), "{text:?}");
});
