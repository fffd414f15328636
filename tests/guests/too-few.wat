;; No verdict at all.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (call $answer (i32.const 0) (i32.const 0x500) (i32.const 4)))
