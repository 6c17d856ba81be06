//! The log of a guest: escaped, cut off, limited.

use std::fmt;
use std::sync::Mutex;

use tracing::Event;
use tracing::Metadata;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing::span;

use super::*;

/// Keeps the lines of plugins.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "postern::plugin"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "text" {
            self.0.push_str(value);
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// A guest that writes a line of `len` bytes, with one field, at each request.
fn writing(len: usize) -> String {
    let import = r#"(import "postern:plugin/log@0.1.0" "write"
        (func $write (param i32 i32 i32 i32 i32)))"#;
    let fields = format!(
        r#"(data (i32.const 16384) "a\0ab\1b[2J")
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param i32 i32) (result i32)
          (i32.store (i32.const 300) (i32.const 16384)) (i32.store (i32.const 304) (i32.const 1))
          (i32.store (i32.const 308) (i32.const 16384)) (i32.store (i32.const 312) (i32.const 3))
          (call $write (i32.const 3) (i32.const 16384) (i32.const {len})
            (i32.const 300) (i32.const 1))
          (i32.const 512))"#
    );
    guest(import, &fields)
}

#[tokio::test]
async fn fields_without_text_have_their_share_of_a_line() {
    let lines = Lines::default();
    let _default = tracing::subscriber::set_default(lines.clone());
    // What the memory of a guest holds above its own data: zeros.
    let many = writing(7).replace(
        "(i32.const 300) (i32.const 1))",
        "(i32.const 16400) (i32.const 3000))",
    );
    let worker = worker_of(&many, quick()).await;
    worker.on_request(&mut Exchange::default()).await.unwrap();
    let got = std::mem::take(&mut *lines.0.lock().unwrap());
    let want = 4000..=crate::limits::MAX_LOG_LINE + 100;
    assert!(want.contains(&got[0].len()), "{}", got[0].len());
}

#[tokio::test]
async fn lines_are_escaped_cut_off_and_limited() {
    let lines = Lines::default();
    let _default = tracing::subscriber::set_default(lines.clone());
    let limits = PluginLimits {
        log_lines: 2,
        ..quick()
    };
    let short = worker_of(&writing(7), limits).await;
    // Should the machine pause for a second in between, more lines pass: so the sum is checked.
    for _ in 0..20 {
        short.on_request(&mut Exchange::default()).await.unwrap();
    }
    let got = std::mem::take(&mut *lines.0.lock().unwrap());
    assert_eq!(got[0], r"a\nb\u{1b}[2J a=a\nb");
    assert_eq!(got.len() as u64 + short.stats().log_dropped(), 20);
    assert!(short.stats().log_dropped() > 0);

    let long = worker_of(&writing(40_000), limits).await;
    long.on_request(&mut Exchange::default()).await.unwrap();
    let got = std::mem::take(&mut *lines.0.lock().unwrap());
    // What is kept of it is zero bytes, each of which becomes five characters.
    assert!(
        got[0].ends_with('…') && got[0].len() < 30_000,
        "{}",
        got[0].len()
    );
}
