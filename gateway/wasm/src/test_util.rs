//! Plugins as WAT text, for tests: no toolchain for guests is needed to run them.

use wit_component::StringEncoding;
use wit_component::embed_component_metadata;
use wit_parser::Resolve;

use crate::component::encode::encode_component;

const WIT: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("phases.wit", include_str!("../../../wit/phases.wit")),
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// What every guest has: a memory, an allocator that never frees (it starts again with each
/// call of `configure`), and a `configure` that asks for nothing.
///
/// Addresses below 1024 are the guest's own for data; results may be written from 512.
const PRELUDE: &str = r#"
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))
  (func $alloc (export "cabi_realloc")
    (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    ;; Views are read before the next call, so the space may be used again.
    (if (i32.gt_u (i32.add (local.get $at) (local.get $size)) (i32.const 65536))
      (then (local.set $at (i32.const 1024))))
    (global.set $next (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
"#;

const CONFIGURE: &str = r#"
  (func (export "postern:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32)
    (memory.fill (i32.const 256) (i32.const 0) (i32.const 64))
    (i32.const 256))
"#;

/// Text of a core module with the parts that every guest has: memory, allocator, and an accepting
/// `configure` unless `fields` has one. `imports` come first, as the text format wants.
pub fn guest(imports: &str, fields: &str) -> String {
    let configure = if fields.contains("lifecycle@0.1.0#configure") {
        ""
    } else {
        CONFIGURE
    };
    format!("(module {imports} {PRELUDE} {configure} {fields})")
}

/// A component of the text of a core module.
///
/// # Panics
///
/// If the text is not a plugin: this is for tests.
pub fn component(wat: &str) -> Vec<u8> {
    encode_component(&module(wat)).expect("the text is a plugin")
}

/// The core module of the text, with the sections that say what its imports and exports mean.
///
/// # Panics
///
/// As [`component`].
pub fn module(wat: &str) -> Vec<u8> {
    let mut world = String::from("world guest { include host;\n");
    for phase in [
        "lifecycle",
        "route-phase",
        "request-phase",
        "request-body-phase",
        "request-stream",
        "response-phase",
        "response-body-phase",
        "response-stream",
        "log-phase",
        "challenge-phase",
        "background",
        "dns-solver",
    ] {
        if wat.contains(&format!("postern:plugin/{phase}@0.1.0#")) {
            world.push_str(&format!("export {phase};\n"));
        }
    }
    world.push('}');
    component_type(wat, &world)
}

/// As [`module`], with a world of the caller's.
///
/// # Panics
///
/// As [`component`].
pub fn component_type(wat: &str, world: &str) -> Vec<u8> {
    let mut text = String::new();
    for (_, source) in WIT {
        text.push_str(source);
    }
    text.push_str(world);
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("guest.wit", &text)
        .expect("the interface is well formed");
    let world = resolve
        .select_world(&[package], Some("guest"))
        .expect("the world is there");
    let mut module = wat::parse_str(wat).expect("the text is a module");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("the interface can be encoded");
    module
}
