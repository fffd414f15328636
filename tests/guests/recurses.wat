;; Calls itself without end.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(func $deeper (param i64 i64) (result i64)
  (i64.add (call $deeper (i64.add (local.get 0) (i64.const 1)) (local.get 0)) (local.get 1)))
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (i32.wrap_i64 (call $deeper (i64.const 1) (i64.const 2))))
