//! Files that are not plugins, each refused for its own reason.

use super::*;
use crate::test_util;

const ON_REQUEST: &str = r#"
  (func (export "postern:plugin/request-phase@0.1.0#on-request") (param i32 i32) (result i32)
    (i32.store8 (i32.const 512) (i32.const 0))
    (i32.const 512))
"#;

pub(crate) fn plugin() -> Vec<u8> {
    test_util::component(&test_util::guest("", ON_REQUEST))
}

fn load(bytes: &[u8]) -> Result<Arc<Component>, PluginError> {
    Component::load(&PluginEngine::new(None).unwrap(), bytes)
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn a_plugin_loads_and_tells_what_it_is() {
    let bytes = plugin();
    let component = load(&bytes).unwrap();
    assert_eq!(component.size(), bytes.len());
    assert_eq!(component.digest().len(), 64);
    assert!(!component.was_cached());
    let only_request = Phases {
        request: true,
        ..Phases::default()
    };
    assert_eq!(component.phases(), only_request);
    for import in component.imports() {
        assert!(is_offered(import), "{import}");
    }
}

#[test]
fn a_file_that_is_no_plugin_is_refused_for_its_reason() {
    let plugin = plugin();
    let engine = PluginEngine::new(None).unwrap();
    let precompiled = engine.wasmtime().precompile_component(&plugin).unwrap();
    let core = test_util::module(&test_util::guest("", ON_REQUEST));
    let no_lifecycle = test_util::component_type(
        "(module (memory (export \"memory\") 1)
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 0))
           (func (export \"postern:plugin/request-phase@0.1.0#on-request\")
             (param i32 i32) (result i32) (i32.const 0)))",
        "world guest { export request-phase; }",
    );
    let no_lifecycle = crate::encode_component(&no_lifecycle).unwrap();
    let no_phase = test_util::component(&test_util::guest("", ""));
    let cases: [(&str, Vec<u8>, &str); 11] = [
        ("empty", Vec::new(), "NotWasm"),
        ("text", b"#!/bin/sh".to_vec(), "NotWasm"),
        ("too large", vec![0; MAX_COMPONENT_BYTES + 1], "TooLarge"),
        ("core module", core, "CoreModule"),
        ("machine code", precompiled, "Precompiled"),
        ("truncated", plugin[..plugin.len() / 2].to_vec(), "Compile"),
        ("header only", plugin[..8].to_vec(), "MissingExport"),
        ("no lifecycle", no_lifecycle, "MissingExport"),
        ("no phase", no_phase, "NoPhase"),
        (
            "a newer interface",
            wat(r#"(component (import "postern:plugin/request@0.2.0" (instance)))"#),
            "UnknownImport",
        ),
        (
            "a phase of a later version",
            wat(r#"(component (instance $i)
                     (export "postern:plugin/trailer-phase@0.1.0" (instance $i)))"#),
            "UnknownExport { name: \"postern:plugin/trailer-phase@0.1.0\" }",
        ),
    ];
    for (what, bytes, want) in cases {
        let error = Component::load(&engine, &bytes).unwrap_err();
        assert!(format!("{error:?}").starts_with(want), "{what}: {error:?}");
        assert_eq!(error.reason(), "plugin-load", "{what}");
    }
}

#[test]
fn a_function_that_the_host_lacks_is_found_when_loading() {
    let bytes = wat(
        r#"(component (import "postern:plugin/clock@0.1.3" (instance (export "later" (func)))))"#,
    );
    let error = load(&bytes).unwrap_err();
    assert!(matches!(error, PluginError::Link(_)), "{error:?}");
}

#[test]
fn what_is_not_a_core_module_with_an_interface_is_not_encoded() {
    assert!(matches!(
        crate::encode_component(b"no"),
        Err(PluginError::NotWasm)
    ));
    assert!(matches!(
        crate::encode_component(b"\0asm\x01\0\0\0\xff"),
        Err(PluginError::Encode(_))
    ));
}

/// A guest that imports an interface of WASI, and calls it if told to.
pub(crate) fn wasi_guest(body: &str) -> Vec<u8> {
    let import =
        r#"(import "wasi:cli/environment@0.2.0" "get-arguments" (func $args (param i32)))"#;
    let phase = format!(
        r#"(func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param i32 i32) (result i32)
          {body} (i32.store8 (i32.const 512) (i32.const 0)) (i32.const 512))"#
    );
    let world = "world guest {
          include host;
          import wasi:cli/environment@0.2.0;
          export lifecycle;
          export request-phase;
        }
        package wasi:cli@0.2.0 {
          interface environment { get-arguments: func() -> list<string>; }
        }";
    let module = test_util::component_type(&test_util::guest(import, &phase), world);
    crate::encode_component(&module).unwrap()
}

#[test]
fn what_a_runtime_drags_in_links_and_is_named() {
    let component = load(&wasi_guest("(call $args (i32.const 600))")).unwrap();
    assert_eq!(component.stubbed(), ["wasi:cli/environment@0.2.0"]);
    assert!(component.imports().iter().all(|name| is_offered(name)));
    // With types of its own, and nothing that could be called for a resource.
    let error = load(&wat(
        r#"(component (import "wasi:io/streams@0.2.3" (instance
             (export "output-stream" (type (sub resource)))
             (export "flush" (func)))))"#,
    ));
    assert!(
        matches!(error, Err(PluginError::MissingExport { .. })),
        "{error:?}"
    );
}
