//! From an empty folder to a served certificate, and to the next one.
