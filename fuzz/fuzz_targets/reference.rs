// SPDX-License-Identifier: Apache-2.0
//! Names of images as a person or an archive may write them: what parses must parse to itself.
#![no_main]

use hc_image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok().as_ref(), Some(&reference));
        assert_eq!(reference.familiar().parse::<Reference>().ok(), Some(reference));
    }
});
