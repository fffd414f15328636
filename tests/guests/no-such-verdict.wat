;; A verdict whose tag is 9.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(data (i32.const 0x600) "\08\06\00\00\01\00\00\00\09")
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (i32.const 0x600))
