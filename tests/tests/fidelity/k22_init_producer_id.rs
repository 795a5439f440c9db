//! InitProducerId without transactions.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    let plain = || json!({ "TransactionalId": null, "TransactionTimeoutMs": 60_000 });
    let named = |id: i64, epoch: i16| -> Value {
        json!({ "TransactionalId": null, "TransactionTimeoutMs": 60_000, "ProducerId": id, "ProducerEpoch": epoch })
    };
    vec![
        case(22, "a new id each time").ask(plain()).ask(plain()),
        case(22, "another broker's ids").ask_of(2, plain()).until_taken(),
        case(22, "time limits that do not matter")
            .ask(json!({ "TransactionalId": null, "TransactionTimeoutMs": 0 }))
            .ask(json!({ "TransactionalId": null, "TransactionTimeoutMs": -1 }))
            .ask(json!({ "TransactionalId": null, "TransactionTimeoutMs": i32::MAX })),
        case(22, "an id and an epoch without a transaction")
            .ask(named(5, 3))
            .ask(named(5, i16::MAX))
            .ask(named(-1, 3))
            .ask(named(5, -1))
            .ask(named(-2, -2))
            .versions(3..=5),
        case(22, "an empty transactional id")
            .ask(json!({ "TransactionalId": "", "TransactionTimeoutMs": 1000 })),
        damaged(22, plain()),
    ]
}
