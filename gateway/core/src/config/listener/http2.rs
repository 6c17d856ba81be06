//! What one HTTP/2 connection may cost before it is ended with GOAWAY (ENHANCE_YOUR_CALM).
//!
//! Frames that carry no request are nearly free to send and not free to read. Each kind has a
//! budget that no client of good will comes near; what is spent is counted for the connection.

use std::time::Duration;

/// Bytes of a decoded field section, each field with the 32 bytes of RFC 9113, 6.5.2.
pub const DEFAULT_HEAD_BYTES: u32 = 32 << 10;
/// The time that the budgets of frames are for.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
/// Requests that the client reset before their response, in the life of a connection.
pub const DEFAULT_RESETS: u32 = 50;
/// RST_STREAM frames in a window: before a response, or more than there were streams.
pub const DEFAULT_RESETS_IN_WINDOW: u32 = 100;
/// Resets that the client made the gateway send by breaking the protocol or its limits, in the
/// life of a connection.
pub const DEFAULT_FAULTS: u32 = 200;
/// SETTINGS frames in a window.
pub const DEFAULT_SETTINGS: u32 = 50;
/// PING frames in a window, over what was sent to the client.
pub const DEFAULT_PINGS: u32 = 100;
/// PRIORITY frames, and frames of unknown types, in a window, over one for each request.
pub const DEFAULT_PRIORITIES: u32 = 100;
/// WINDOW_UPDATE frames in a window, over what was sent to the client.
pub const DEFAULT_WINDOW_UPDATES: u32 = 100;
/// DATA frames without data, in a row, on one connection.
pub const DEFAULT_EMPTY_DATA: u32 = 100;

/// Budgets of one HTTP/2 connection. A client that spends exactly a budget is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Http2Limits {
    pub head_bytes: u32,
    pub window: Duration,
    pub resets: u32,
    pub resets_in_window: u32,
    pub faults: u32,
    pub settings: u32,
    pub pings: u32,
    pub priorities: u32,
    pub window_updates: u32,
    pub empty_data: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            head_bytes: DEFAULT_HEAD_BYTES,
            window: DEFAULT_WINDOW,
            resets: DEFAULT_RESETS,
            resets_in_window: DEFAULT_RESETS_IN_WINDOW,
            faults: DEFAULT_FAULTS,
            settings: DEFAULT_SETTINGS,
            pings: DEFAULT_PINGS,
            priorities: DEFAULT_PRIORITIES,
            window_updates: DEFAULT_WINDOW_UPDATES,
            empty_data: DEFAULT_EMPTY_DATA,
        }
    }
}
