//! What one namespace does costs no other, and takes nothing from it.
