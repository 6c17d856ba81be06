//! The meaning of the settings that bound what a client, or all of them, may take.

use super::FileReader;
use super::item::HEAD_BYTES;
use super::raw::RawHttp2Limits;
use super::raw::RawLimits;
use super::raw::RawListenerLimits;
use super::units;
use crate::config::LimitsSpec;
use crate::config::MemorySteps;
use crate::config::listener::Http2Limits;
use crate::config::listener::ListenerLimits;

/// The HTTP implementation refuses longer targets by itself.
const LINE_BYTES: std::ops::RangeInclusive<u64> = (1 << 10)..=(64 << 10);
const MAX_CONNECTIONS: i64 = 10_000_000;
const MAX_REQUESTS: i64 = 1_000_000_000;
/// Most that a budget of HTTP/2 frames can be: beyond, there is none.
const MAX_FRAMES: i64 = 1_000_000;
/// Fastest body rate that can be asked for: more would refuse mobile clients.
const MAX_BODY_RATE: u64 = 1 << 20;

impl FileReader<'_> {
    pub(super) fn limits(&mut self, raw: &RawLimits) {
        let connections = raw
            .connections
            .as_ref()
            .map(|number| self.number(number, "connections", 1..=MAX_CONNECTIONS));
        let mut memory = MemorySteps::default();
        let steps = [
            (&raw.memory_close, "memory-close", &mut memory.close),
            (&raw.memory_refuse, "memory-refuse", &mut memory.refuse),
            (&raw.memory_stop, "memory-stop", &mut memory.stop),
        ];
        for (number, what, into) in steps {
            if let Some(number) = number {
                // The range ends at 100.
                *into = u8::try_from(self.number(number, what, 1..=100)).unwrap_or(100);
            }
        }
        if !(memory.close <= memory.refuse && memory.refuse <= memory.stop) {
            let last = [&raw.memory_stop, &raw.memory_refuse, &raw.memory_close];
            if let Some(number) = last.into_iter().flatten().next() {
                self.error_with_help(
                    number.span(),
                    format!(
                        "the steps of memory do not rise: close {} %, refuse {} %, stop {} %",
                        memory.close, memory.refuse, memory.stop
                    ),
                    "first connections are closed, then requests refused, then connections",
                );
            }
        }
        self.reading.config.limits = LimitsSpec {
            connections: connections.and_then(|number| u32::try_from(number).ok()),
            memory,
        };
    }

    pub(super) fn traffic_limits(&mut self, raw: &RawListenerLimits, limits: &mut ListenerLimits) {
        if let Some(text) = &raw.request_line
            && let Some(size) = self.size(text, LINE_BYTES)
        {
            // LINE_BYTES ends at 64 KiB.
            limits.request_line = u32::try_from(size).unwrap_or(u32::MAX);
        }
        let requests = raw.requests.as_ref();
        self.count(requests, "requests", MAX_REQUESTS, &mut limits.requests);
        if let Some(text) = &raw.body_rate
            && let Some(rate) = self.text(text, "size", units::size)
        {
            match u32::try_from(rate) {
                Ok(bytes) if rate <= MAX_BODY_RATE => limits.body_rate = bytes,
                _ => {
                    let message = format!("'{}' is more than 1MiB a second", **text);
                    self.error(text.span(), message);
                }
            }
        }
    }

    pub(super) fn http2_limits(&mut self, raw: &RawHttp2Limits) -> Http2Limits {
        let mut limits = Http2Limits::default();
        if let Some(text) = &raw.head
            && let Some(size) = self.size(text, HEAD_BYTES)
        {
            // HEAD_BYTES ends at 1 MiB.
            limits.head_bytes = u32::try_from(size).unwrap_or(u32::MAX);
        }
        self.duration(raw.window.as_ref(), &mut limits.window);
        let counts = [
            (&raw.resets, "resets", &mut limits.resets),
            (
                &raw.resets_in_window,
                "resets-in-window",
                &mut limits.resets_in_window,
            ),
            (&raw.faults, "faults", &mut limits.faults),
            (&raw.settings, "settings", &mut limits.settings),
            (&raw.pings, "pings", &mut limits.pings),
            (&raw.priorities, "priorities", &mut limits.priorities),
            (
                &raw.window_updates,
                "window-updates",
                &mut limits.window_updates,
            ),
            (&raw.empty_data, "empty-data", &mut limits.empty_data),
        ];
        for (number, what, into) in counts {
            self.count(number.as_ref(), what, MAX_FRAMES, into);
        }
        limits
    }
}
