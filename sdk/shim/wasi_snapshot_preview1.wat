;; WASI preview 1, answered inside the component.
;;
;; Compilers for Go and C write modules that import WASI preview 1. The gateway offers no WASI, and
;; the adapter that others put in front calls the host whenever it is called itself. Go's collector
;; reads the clock at moments when a component may not call out (in `cabi_realloc`), which traps. So
;; nothing here calls out but in three places where that is known to be allowed:
;;
;; * the first call of all, which Go and C make while the instance starts: it takes the key for
;;   random numbers, and the time;
;; * `postern_refresh`, which the SDK calls at the beginning of each phase: it takes the time;
;; * `poll_oneoff`, with which Go sleeps when nothing else is left to do.
;;
;; Random numbers are the ChaCha20 keystream (RFC 8439) under a key of 256 bits from the gateway's
;; `random`, which is the operating system's. After each use the key is replaced by a part of the
;; stream that nobody has seen, so that what is in memory later does not tell what was drawn before.
;; The time stands still between two refreshes, but for a microsecond each time it is read.
(module
  (import "postern:plugin/random@0.1.0" "number" (func $number (result i64)))
  (import "postern:plugin/clock@0.1.0" "now-ms" (func $now_ms (result i64)))
  (import "postern:plugin/clock@0.1.0" "monotonic-ns" (func $monotonic_ns (result i64)))
  (import "postern:plugin/clock@0.1.0" "sleep-ms" (func $sleep_ms (param i32)))
  (import "env" "memory" (memory 0))

  (global $is_ready (mut i32) (i32.const 0))
  ;; Nanoseconds: since 1970, and monotonic.
  (global $real (mut i64) (i64.const 0))
  (global $monotonic (mut i64) (i64.const 0))
  (global $key_low (mut v128) (v128.const i64x2 0 0))
  (global $key_high (mut v128) (v128.const i64x2 0 0))
  ;; The last block: 64 bytes of the stream.
  (global $block_a (mut v128) (v128.const i64x2 0 0))
  (global $block_b (mut v128) (v128.const i64x2 0 0))
  (global $block_c (mut v128) (v128.const i64x2 0 0))
  (global $block_d (mut v128) (v128.const i64x2 0 0))

  (func $refresh (export "postern_refresh")
    (global.set $real (i64.mul (call $now_ms) (i64.const 1000000)))
    (global.set $monotonic (call $monotonic_ns)))

  (func $prepare
    (if (i32.eqz (global.get $is_ready)) (then
      (global.set $is_ready (i32.const 1))
      (global.set $key_low (i64x2.replace_lane 1 (i64x2.splat (call $number)) (call $number)))
      (global.set $key_high (i64x2.replace_lane 1 (i64x2.splat (call $number)) (call $number)))
      (call $refresh))))

  ;; One of the four rows of the state, turned left by 7, 8, 12 or 16 bits in each word.
  (func $turn (param $row v128) (param $by i32) (result v128)
    (v128.or
      (i32x4.shl (local.get $row) (local.get $by))
      (i32x4.shr_u (local.get $row) (i32.sub (i32.const 32) (local.get $by)))))

  ;; RFC 8439, 2.3: one block, with a nonce of zero. Four quarter rounds at once, a row a vector.
  (func $make_block (param $counter i32)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128) (local $round i32)
    (local $half i32) (local $first_a v128) (local $first_d v128)
    (local.set $first_a (v128.const i32x4 0x61707865 0x3320646e 0x79622d32 0x6b206574))
    (local.set $first_d (i32x4.replace_lane 0 (v128.const i64x2 0 0) (local.get $counter)))
    (local.set $a (local.get $first_a))
    (local.set $b (global.get $key_low))
    (local.set $c (global.get $key_high))
    (local.set $d (local.get $first_d))
    (local.set $round (i32.const 10))
    (loop $rounds
      (local.set $half (i32.const 0))
      (loop $halves
        (local.set $a (i32x4.add (local.get $a) (local.get $b)))
        (local.set $d (call $turn (v128.xor (local.get $d) (local.get $a)) (i32.const 16)))
        (local.set $c (i32x4.add (local.get $c) (local.get $d)))
        (local.set $b (call $turn (v128.xor (local.get $b) (local.get $c)) (i32.const 12)))
        (local.set $a (i32x4.add (local.get $a) (local.get $b)))
        (local.set $d (call $turn (v128.xor (local.get $d) (local.get $a)) (i32.const 8)))
        (local.set $c (i32x4.add (local.get $c) (local.get $d)))
        (local.set $b (call $turn (v128.xor (local.get $b) (local.get $c)) (i32.const 7)))
        (if (i32.eqz (local.get $half))
          (then
            ;; From columns to diagonals: the rows turn by one, two and three words,
            (local.set $b (i8x16.shuffle 4 5 6 7 8 9 10 11 12 13 14 15 0 1 2 3
              (local.get $b) (local.get $b)))
            (local.set $c (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7
              (local.get $c) (local.get $c)))
            (local.set $d (i8x16.shuffle 12 13 14 15 0 1 2 3 4 5 6 7 8 9 10 11
              (local.get $d) (local.get $d))))
          (else
            ;; and back.
            (local.set $b (i8x16.shuffle 12 13 14 15 0 1 2 3 4 5 6 7 8 9 10 11
              (local.get $b) (local.get $b)))
            (local.set $c (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7
              (local.get $c) (local.get $c)))
            (local.set $d (i8x16.shuffle 4 5 6 7 8 9 10 11 12 13 14 15 0 1 2 3
              (local.get $d) (local.get $d)))))
        (local.set $half (i32.add (local.get $half) (i32.const 1)))
        (br_if $halves (i32.lt_u (local.get $half) (i32.const 2))))
      (local.set $round (i32.sub (local.get $round) (i32.const 1)))
      (br_if $rounds (local.get $round)))
    (global.set $block_a (i32x4.add (local.get $a) (local.get $first_a)))
    (global.set $block_b (i32x4.add (local.get $b) (global.get $key_low)))
    (global.set $block_c (i32x4.add (local.get $c) (global.get $key_high)))
    (global.set $block_d (i32x4.add (local.get $d) (local.get $first_d))))

  ;; Writes what is in a row and fits before the end.
  (func $put (param $row v128) (param $at i32) (param $end i32) (result i32)
    (local $n i32)
    (block $done (loop $bytes
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (br_if $done (i32.eq (local.get $n) (i32.const 16)))
      (i32.store8 (local.get $at) (i8x16.extract_lane_u 0 (local.get $row)))
      ;; The next byte comes to the front.
      (local.set $row (i8x16.shuffle 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 0
        (local.get $row) (local.get $row)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $bytes)))
    (local.get $at))

  (func (export "random_get") (param $at i32) (param $length i32) (result i32)
    (local $end i32) (local $counter i32)
    (call $prepare)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (block $done (loop $blocks
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (call $make_block (local.get $counter))
      (local.set $counter (i32.add (local.get $counter) (i32.const 1)))
      (local.set $at (call $put (global.get $block_a) (local.get $at) (local.get $end)))
      (local.set $at (call $put (global.get $block_b) (local.get $at) (local.get $end)))
      (local.set $at (call $put (global.get $block_c) (local.get $at) (local.get $end)))
      (local.set $at (call $put (global.get $block_d) (local.get $at) (local.get $end)))
      (br $blocks)))
    ;; A block that nothing was taken from is the next key.
    (call $make_block (local.get $counter))
    (global.set $key_low (global.get $block_a))
    (global.set $key_high (global.get $block_b))
    (global.set $block_a (v128.const i64x2 0 0))
    (global.set $block_b (v128.const i64x2 0 0))
    (global.set $block_c (v128.const i64x2 0 0))
    (global.set $block_d (v128.const i64x2 0 0))
    (i32.const 0))

  ;; Clock 0 is the time of day; every other one is monotonic.
  (func (export "clock_time_get") (param $clock i32) (param i64) (param $out i32) (result i32)
    (call $prepare)
    (global.set $real (i64.add (global.get $real) (i64.const 1000)))
    (global.set $monotonic (i64.add (global.get $monotonic) (i64.const 1000)))
    (i64.store align=1 (local.get $out)
      (select (global.get $monotonic) (global.get $real) (local.get $clock)))
    (i32.const 0))
  (func (export "clock_res_get") (param i32) (param $out i32) (result i32)
    (i64.store align=1 (local.get $out) (i64.const 1000))
    (i32.const 0))

  ;; Sleeps until the first subscription is due, if it is one to the clock, and says that it is.
  (func (export "poll_oneoff")
    (param $in i32) (param $out i32) (param $n i32) (param $events i32) (result i32)
    (local $time i64)
    (if (i32.eqz (local.get $n)) (then (return (i32.const 28)))) ;; EINVAL
    (if (i32.eqz (i32.load8_u offset=8 (local.get $in))) (then
      (local.set $time (i64.load offset=24 align=1 (local.get $in)))
      ;; A moment rather than a time to wait.
      (if (i32.and (i32.load16_u offset=40 align=1 (local.get $in)) (i32.const 1)) (then
        (local.set $time (i64.sub (local.get $time)
          (select (global.get $monotonic) (global.get $real)
            (i32.load offset=16 align=1 (local.get $in)))))))
      (if (i64.gt_s (local.get $time) (i64.const 0)) (then
        (call $sleep_ms (i32.wrap_i64 (i64.div_u
          (i64.add (local.get $time) (i64.const 999999)) (i64.const 1000000))))
        (call $refresh)))))
    (i64.store align=1 (local.get $out) (i64.load align=1 (local.get $in)))
    (i64.store offset=8 align=1 (local.get $out) (i64.const 0))
    (i64.store offset=16 align=1 (local.get $out) (i64.const 0))
    (i64.store offset=24 align=1 (local.get $out) (i64.const 0))
    (i32.store align=1 (local.get $events) (i32.const 1))
    (i32.const 0))

  ;; What is written to standard output and error is dropped: a plugin logs through `log`.
  (func (export "fd_write")
    (param $fd i32) (param $pieces i32) (param $n i32) (param $out i32) (result i32)
    (local $sum i32)
    (block $done (loop $each
      (br_if $done (i32.eqz (local.get $n)))
      (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 align=1 (local.get $pieces))))
      (local.set $pieces (i32.add (local.get $pieces) (i32.const 8)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br $each)))
    (i32.store align=1 (local.get $out) (local.get $sum))
    (i32.const 0))

  ;; No arguments, no environment, no files: 8 is EBADF.
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "args_sizes_get") (param i32 i32) (result i32)
    (i32.store align=1 (local.get 0) (i32.const 0))
    (i32.store align=1 (local.get 1) (i32.const 0))
    (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_sizes_get") (param i32 i32) (result i32)
    (i32.store align=1 (local.get 0) (i32.const 0))
    (i32.store align=1 (local.get 1) (i32.const 0))
    (i32.const 0))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "proc_exit") (param i32) unreachable)
  ;; Go says here that it allocates for the gateway. The clock is never read outside anyway.
  (func (export "adapter_monotonic_clock_set_paused") (param i32))
)
