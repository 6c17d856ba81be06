//! The definitions, and that they say what is read.

use serde_json::json;

use super::*;
use crate::manifest::load;

#[test]
fn the_manifest_says_what_the_definitions_say() {
    let (manifests, errors) = load(&manifest());
    assert!(errors.is_empty(), "{errors:?}");
    let read: Vec<Value> = manifests.into_iter().map(|m| m.value).collect();
    let want = definitions().map(|definition| serde_json::to_value(definition).unwrap());
    assert_eq!(read, want);
}

#[test]
fn the_kinds_are_those_of_a_file() {
    let schema = postern_core::config::schema();
    let kinds = schema["$defs"]["RawPolicy"]["oneOf"].as_array().unwrap();
    let mut known: Vec<&Value> = kinds
        .iter()
        .map(|kind| &kind["properties"]["kind"]["const"])
        .collect();
    known.sort_by_key(|kind| kind.to_string());
    let crd = serde_json::to_value(Policy::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let listed = spec["properties"]["kind"]["enum"].as_array().unwrap();
    let mut listed: Vec<&Value> = listed.iter().collect();
    listed.sort_by_key(|kind| kind.to_string());
    assert_eq!(listed, known);
    // Its other keys have to come through.
    assert_eq!(spec["x-kubernetes-preserve-unknown-fields"], json!(true));
    assert!(spec.get("additionalProperties").is_none(), "{spec}");
}

#[test]
fn the_manifests_hold_what_is_printed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/kubernetes");
    for file in ["base/crds.yaml", "chart/crds/crds.yaml"] {
        let file = std::path::Path::new(folder).join(file);
        let written = std::fs::read_to_string(&file).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(file, manifest()).unwrap();
        } else {
            assert!(
                written == manifest(),
                "run: make kubernetes-manifests, for {}",
                file.display()
            );
        }
    }
}
