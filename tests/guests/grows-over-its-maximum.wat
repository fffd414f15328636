;; Asks for more than the maximum that it declares itself.
(memory (export "memory") 2 3)
(global $top (mut i32) (i32.const 65536))
(func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and
    (i32.add (global.get $top) (i32.sub (local.get 2) (i32.const 1)))
    (i32.sub (i32.const 0) (local.get 2))))
  (global.set $top (i32.add (local.get $at) (local.get 3)))
  (local.get $at))
;; include about.inc
;; include verdicts.inc
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (loop $again
    (drop (memory.grow (i32.const 1)))
    (br $again))
  unreachable)
