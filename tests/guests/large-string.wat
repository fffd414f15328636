;; A code of 400 KiB, within the memory it may have.
(memory (export "memory") 2)
(global $top (mut i32) (i32.const 65536))
(func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
  (global.set $top (i32.add (local.get $at) (local.get 3)))
  (local.get $at))
;; include about.inc
;; include verdicts.inc
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (drop (memory.grow (i32.const 8)))
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 131072) (i32.const 409600)))
