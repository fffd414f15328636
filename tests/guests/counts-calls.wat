;; Counts its calls in memory and puts the count into its code: `calls-1`.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(data (i32.const 0x600) "calls-0")
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (i32.store8 (i32.const 0x606) (i32.add (i32.load8_u (i32.const 0x606)) (i32.const 1)))
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 0x600) (i32.const 7)))
