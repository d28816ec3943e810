//! The fee of a payment, by a rate that the function's publisher sets. What is charged is emitted as a span.

use logline_guest::{Call, Failure, Host, HostExt as _, json};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Config {
    /// Of the amount, in basis points.
    rate: u64,
}

#[derive(Deserialize)]
struct Input {
    payment: String,
    amount_minor: u64,
}

#[derive(Serialize)]
struct Output {
    fee_minor: u64,
}

fn fee(call: Call<Config, Input>, host: &mut dyn Host) -> Result<Output, Failure> {
    let Input { payment, amount_minor } = call.input;
    if amount_minor == 0 {
        return Err(Failure::new("no_amount", "amount_minor is 0: send what is to be paid"));
    }
    let too_large = || Failure::new("too_large", "amount_minor times the rate has no room in 64 bits: send a smaller amount");
    let fee_minor = amount_minor.checked_mul(call.config.rate).ok_or_else(too_large)? / 10_000;
    host.emit(&json!({"entity_type": "fee", "name": payment, "content": {"fee_minor": fee_minor}}))?;
    host.log("info", "fee charged", json!({"payment": payment}))?;
    Ok(Output { fee_minor })
}

logline_guest::export!(fee);

#[cfg(test)]
mod tests {
    use logline_guest::{Op, Value, answer};

    use super::*;

    #[test]
    fn a_fee_that_has_no_room_is_an_error_and_no_other_fee() {
        let mut host = |_: Op, _: &Value| Ok(json!({"id": "a"}));
        let call = br#"{"config":{"rate":25},"input":{"payment":"pay_1","amount_minor":18446744073709551615}}"#;
        assert_eq!(answer(call, &mut host, fee).unwrap_err().code, "too_large");
    }

    #[test]
    fn a_fee_is_charged_and_emitted() {
        let mut emitted = Vec::new();
        let mut host = |op: Op, argument: &Value| {
            if op == Op::Emit {
                emitted.push(argument.clone());
            }
            Ok(json!({"id": "a"}))
        };
        let call = br#"{"config":{"rate":25},"input":{"payment":"pay_1","amount_minor":10000}}"#;
        assert_eq!(answer(call, &mut host, fee), Ok(json!({"fee_minor": 25})));
        assert_eq!(emitted, [json!({"entity_type": "fee", "name": "pay_1", "content": {"fee_minor": 25}})]);
    }
}
