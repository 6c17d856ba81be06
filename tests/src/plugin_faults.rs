//! The built gateway under load while its plugins fail: what `plugin-faults-under-load` runs.
//!
//! [`traps`]: one request of a hundred makes the plugin trap; nobody else may notice. [`loops`]:
//! plugins that never end, while clients ask for a route without a plugin.

mod loops;
mod traps;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;

use self::loops::Loops;
use self::traps::Traps;

/// Workers of the gateway.
const WORKERS: u32 = 2;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The gateway's program.
    pub gateway: PathBuf,
    /// Requests that trap; none leaves the part out.
    pub traps: u64,
    /// When the traps are given up.
    pub traps_within: Duration,
    /// How long loops run, and how long it is quiet in between; none leaves the part out.
    pub loops_for: Duration,
}

/// What was seen.
#[derive(Debug)]
pub struct Report {
    traps: Option<Traps>,
    loops: Option<Loops>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        let is_any = self.traps.is_some() || self.loops.is_some();
        is_any
            && self.traps.as_ref().is_none_or(Traps::is_good)
            && self.loops.as_ref().is_none_or(Loops::is_good)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        if let Some(traps) = &self.traps {
            rows.extend(traps.rows());
        }
        if let Some(loops) = &self.loops {
            rows.extend(loops.rows());
        }
        for (what, value) in rows {
            writeln!(f, "{what:<32}{value}")?;
        }
        let verdict = if self.is_good() { "good" } else { "NOT GOOD" };
        write!(f, "{verdict}")
    }
}

/// Both parts, one after the other.
pub async fn run(plan: &Plan) -> Report {
    let mut report = Report {
        traps: None,
        loops: None,
    };
    if plan.traps > 0 {
        report.traps = Some(traps::run(plan).await);
    }
    if !plan.loops_for.is_zero() {
        report.loops = Some(loops::run(plan).await);
    }
    report
}

/// A component that passes GET on with a field `x-plugin: seen`. Other methods are faults, told
/// apart by their length: POST reaches an `unreachable`, PATCH reads outside its memory, DELETE
/// calls itself without end, OPTIONS loops without end.
fn faulty() -> Vec<u8> {
    let imports = r#"
      (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
      (import "postern:plugin/request@0.1.0" "method" (func $method (param i32)))"#;
    component(&guest(
        imports,
        r#"(data (i32.const 0) "x-pluginseen")
        (func $deep (param i32) (result i32)
          (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param $view i32) (param $len i32) (result i32)
          (local $method i32)
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          (call $method (i32.const 600))
          (local.set $method (i32.load (i32.const 604)))
          (if (i32.eq (local.get $method) (i32.const 4)) (then unreachable))
          (if (i32.eq (local.get $method) (i32.const 5))
            (then (drop (i32.load (i32.const -4)))))
          (if (i32.eq (local.get $method) (i32.const 6))
            (then (drop (call $deep (i32.const 0)))))
          (if (i32.eq (local.get $method) (i32.const 7)) (then (loop $l (br $l))))
          (call $set (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 4) (i32.const 600))
          (i32.const 512))"#,
    ))
}
