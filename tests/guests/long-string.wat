;; A code of five thousand bytes.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (memory.fill (i32.const 8192) (i32.const 0x61) (i32.const 5000))
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 8192) (i32.const 5000)))
