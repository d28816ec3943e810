//! The page as it is served, and its files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::stage::Stage;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("page")
}

/// The files of the page by their names below `/page/`, and their texts.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// What stands between quotes after `marker`.
fn quoted<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    let after = text.split(marker).skip(1);
    after.filter_map(|rest| rest.split_once(['\'', '"']).map(|(value, _)| value)).collect()
}

#[test]
fn nothing_is_loaded_from_elsewhere_and_nothing_is_inline() {
    for (name, text) in files() {
        // The name of SVG's elements is no address.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http:", "https:", "src=\"//", "ws://", "wss://", "@import", "url("] {
            assert!(!text.contains(foreign), "{name} has {foreign}");
        }
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "setTimeout('",
            "srcdoc",
        ] {
            assert!(!text.contains(sink), "{name} has {sink}");
        }
        if name.ends_with(".html") {
            assert!(!text.contains(" style=") && !text.contains("<style") && !text.contains(" onclick"), "{name}");
            assert_eq!(text.matches("<script").count(), 1, "{name}");
        }
    }
}

#[test]
fn every_file_that_is_named_exists_and_every_file_is_named() {
    let files = files();
    let names: BTreeSet<_> = files.iter().map(|(name, _)| name.clone()).collect();
    let mut used = BTreeSet::from(["index.html".to_owned(), "stream-worker.js".to_owned()]);
    for (name, text) in &files {
        let base = Path::new(name).parent().unwrap();
        let imported = if name.ends_with(".js") { quoted(text, " from '") } else { Vec::new() };
        for target in imported {
            let path = base.join(target.strip_prefix("./").unwrap_or(target));
            let path = path.to_str().unwrap().replace("views/../", "");
            assert!(names.contains(&path), "{name} imports {target}");
            used.insert(path);
        }
        if name == "index.html" {
            let local = |target: &&str| target.starts_with("page/");
            used.extend(
                quoted(text, "href=\"")
                    .into_iter()
                    .chain(quoted(text, "src=\""))
                    .filter(local)
                    .map(|target| target[5..].to_owned()),
            );
        }
    }
    assert_eq!(names, used);
}

#[cfg(feature = "page")]
#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_served_with_the_policy_and_a_tag() {
    let stage = Stage::start().await;
    let mut tags = BTreeSet::new();
    let paths = files().into_iter().map(|(name, text)| (format!("/page/{name}"), text));
    let index = std::fs::read_to_string(folder().join("index.html")).unwrap();
    for (path, text) in paths.chain([("/".to_owned(), index)]) {
        // Without a token, and whatever the browser can unpack: the tag is that of these bytes.
        let answer = stage.call("GET", &path, &[("accept-encoding", "gzip")], None).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, text.as_bytes()), "{path}");
        let header = |name: &str| answer.headers.get(name).map(String::as_str).unwrap_or_default();
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "worker-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|directive| directive == part), "{path}: {part} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!((header("x-content-type-options"), header("referrer-policy")), ("nosniff", "no-referrer"));
        assert_eq!((header("cache-control"), header("x-frame-options")), ("no-cache", "DENY"));
        let tag = header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() == 66, "{path}: {tag}");
        let again = stage.call("GET", &path, &[("if-none-match", &format!("\"other\", W/{tag}"))], None).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        tags.insert(tag);
    }
    // The page itself is at two addresses.
    assert_eq!(tags.len(), files().len());
    for path in ["/page/none.js", "/page/../Cargo.toml", "/page/%2e%2e/Cargo.toml", "/page/views/", "/page/"] {
        let answer = stage.call("GET", path, &[], None).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    stage.call("POST", "/", &[], Some(b"")).await.is(405, "method_not_allowed");
}

#[cfg(not(feature = "page"))]
#[tokio::test(flavor = "multi_thread")]
async fn without_the_feature_there_is_no_page() {
    let stage = Stage::start().await;
    for path in ["/", "/page/index.html", "/page/main.js"] {
        stage.call("GET", path, &[], None).await.is(404, "not_found");
    }
}

#[test]
fn the_page_is_off_by_default() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let features = manifest.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
    assert!(features.contains("page = []") && !features.contains("default"), "{features}");
}
