//! What is generated, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::HashMap;
use std::path::Path;

use kuafu_build::{Error, compile_into};

fn compile(definition: &str) -> Result<String, Error> {
    let dir = tempfile::tempdir().unwrap();
    let proto = dir.path().join("x.proto");
    std::fs::write(&proto, definition).unwrap();
    compile_into(&[proto.as_path()], &[dir.path()], dir.path())?;
    Ok(std::fs::read_to_string(dir.path().join("a.b.rs")).unwrap())
}

fn service(methods: &str) -> String {
    format!(r#"syntax = "proto3"; package a.b; message M {{}} service MyService {{ {methods} }}"#)
}

#[test]
fn generates_both_transports() {
    let code =
        compile(&service("rpc DoIt(M) returns (M) { option idempotency_level = IDEMPOTENT; }")).unwrap();
    for part in [
        "pub trait MyService: Send + Sync + 'static",
        "pub struct MyServiceServer<S>",
        "pub struct MyServiceClient",
        "pub struct MyServiceGrpc<S>",
        "pub mod grpc",
        r#"::kuafu::Method::new("a.b.MyService", "DoIt", true)"#,
        "pub async fn do_it_with_payload",
        "pub const FILE_DESCRIPTOR_SET",
    ] {
        assert!(code.contains(part), "{part} is missing");
    }
}

#[test]
fn comments_with_quotes_and_braces_survive() {
    let code =
        compile(&service("\n// \"quoted\" {braces} \\ and `code`\n rpc DoIt(M) returns (M);")).unwrap();
    assert!(code.contains("\"quoted\" {braces}"), "{code}");
}

#[test]
fn streams_are_refused() {
    for method in ["rpc S(stream M) returns (M);", "rpc S(M) returns (stream M);"] {
        let error = compile(&service(method)).unwrap_err();
        assert!(matches!(&error, Error::Streaming { method } if method == "a.b.MyService/S"), "{error}");
    }
}

#[test]
fn same_method_ids_are_refused() {
    // Two names with the same 32-bit hash: there are some among the first few hundred thousand.
    let id = |name: &str| {
        format!("a.b.MyService/{name}")
            .bytes()
            .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    };
    let mut seen = HashMap::new();
    let (first, second) = (0u32..)
        .map(|i| format!("M{}", i.wrapping_mul(2_654_435_761)))
        .find_map(|name| seen.insert(id(&name), name.clone()).map(|first| (first, name)))
        .unwrap();
    assert_ne!(first, second);
    let definition = service(&format!("rpc {first}(M) returns (M); rpc {second}(M) returns (M);"));
    let error = compile(&definition).unwrap_err();
    assert!(matches!(&error, Error::SameId { id: it, .. } if *it == id(&first)), "{error}");
}

#[test]
fn mistakes_name_their_place() {
    let error = compile("syntax = \"proto3\"; package a.b; message {").unwrap_err();
    assert!(matches!(error, Error::Parse(_)), "{error}");
    let missing =
        compile_into(&[Path::new("/no/such.proto")], &[Path::new("/no")], Path::new("/no")).unwrap_err();
    assert!(matches!(missing, Error::Parse(_)), "{missing}");
}
