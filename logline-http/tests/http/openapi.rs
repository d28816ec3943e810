//! The document is what is checked in, and the pages have what the code has.

use std::collections::BTreeSet;

use logline_http::{Code, Permission, openapi};
use serde_json::Value;

use crate::stage::{Stage, options};

const CHECKED_IN: &str = include_str!("../../../docs/openapi.json");
const PAGE: &str = include_str!("../../../docs/http.md");

#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    if std::env::var_os("LOGLINE_WRITE_OPENAPI").is_some() {
        std::fs::write(path, openapi()).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == openapi(),
        "run this test with LOGLINE_WRITE_OPENAPI=1, and review the difference"
    );
}

#[test]
fn every_code_has_a_section_of_the_page_with_its_status() {
    let sections: BTreeSet<_> = PAGE.lines().filter_map(|line| line.strip_prefix("#### ")).collect();
    assert_eq!(sections, Code::ALL.iter().map(|code| code.as_str()).collect());
    for code in Code::ALL {
        let heading = format!("#### {}\n", code.as_str());
        let section = PAGE.split(&heading).nth(1).unwrap();
        assert!(section.trim_start().starts_with(&format!("Status {}.", code.status().as_u16())), "{}", code.as_str());
    }
}

#[test]
fn the_page_lists_every_permission_and_every_route() {
    for permission in Permission::ALL {
        assert!(PAGE.contains(&format!("| `{}` |", permission.as_str())), "{permission:?}");
    }
    let document: Value = serde_json::from_str(CHECKED_IN).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            assert!(PAGE.contains(&format!("`{} {path}`", method.to_uppercase())), "{method} {path}");
        }
    }
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document: Value = serde_json::from_str(CHECKED_IN).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|item| item.as_object().unwrap().values());
    let names: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_document_exists_and_the_document_is_served() {
    let mut options = options().metrics(|| "up 1\n".to_owned());
    options.require_idempotency_key = true;
    let stage = Stage::with(options, logline_http::ServeOptions::default()).await;
    let served = stage.call("GET", "/openapi.json", &[], None).await;
    let whole: Value = serde_json::from_str(&openapi()).unwrap();
    for (path, item) in whole["paths"].as_object().unwrap() {
        // This stage has no memories, prompts and logs. The tests of each mount them.
        let tag = item.as_object().unwrap().values().next().unwrap()["tags"][0].as_str().unwrap();
        let expected = (!["memory", "prompts", "log"].contains(&tag)).then_some(item);
        assert_eq!(served.json()["paths"].get(path), expected, "{path}");
    }
    let token = stage.token("acme", "alice").await;
    for (path, item) in served.json()["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{id}", "00000000-0000-4000-8000-000000000001");
            let bearer = format!("Bearer {token}");
            let open = stage.open(&token, "/healthz", &[]).await;
            assert_eq!(open.status, 200);
            if path.ends_with("/stream") {
                assert_eq!(stage.open(&token, &path, &[]).await.status, 200);
                continue;
            }
            let answer = stage.call(&method.to_uppercase(), &path, &[("authorization", &bearer)], None).await;
            if answer.status == 404 {
                // It is the span that is not found, not the route: without a token the route asks for one.
                stage.call(&method.to_uppercase(), &path, &[], None).await.is(401, "no_token");
            } else {
                assert!(answer.status < 500 && answer.status != 405, "{method} {path}: {}", answer.status);
            }
        }
    }
    let metrics = stage.call("GET", "/metrics", &[], None).await;
    assert_eq!((metrics.status, metrics.body.as_slice()), (200, &b"up 1\n"[..]));
    // Where the host demands keys, a call without one is refused.
    let headers: [(&str, &str); 0] = [];
    stage.post(&token, "/api/execute", &headers, &serde_json::json!({"function": "fee"})).await.is(400, "invalid_parameter");
}
