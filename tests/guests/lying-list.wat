;; Says that its list has 2^28 elements.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(data (i32.const 0x600) "\00\00\00\00\00\00\00\10")
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (i32.const 0x600))
