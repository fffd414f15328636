;; A code that is no UTF-8.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(data (i32.const 0x600) "\ff\fe")
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 0x600) (i32.const 2)))
