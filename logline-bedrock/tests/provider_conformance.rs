//! The adapter passes the contract, also if every byte comes by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod stage;

mod whole {
    logline_core::provider_suite!(super::stage::open, super::stage::block_on);
}

mod byte_by_byte {
    logline_core::provider_suite!(super::stage::dripping, super::stage::block_on);
}

mod messages {
    logline_core::provider_suite!(super::stage::open_messages, super::stage::block_on);
}

mod messages_byte_by_byte {
    logline_core::provider_suite!(super::stage::dripping_messages, super::stage::block_on);
}
