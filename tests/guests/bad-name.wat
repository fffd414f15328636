;; A name that is not in kebab-case.
;; include memory.inc
;; include verdicts.inc
(func (export "sprag:policy/about@1.0.0#describe") (result i32) (i32.const 1024))
(data (i32.const 1024)
  "\50\04\00\00\08\00\00\00"  ;; name
  "\70\04\00\00\05\00\00\00"  ;; version
  "\50\04\00\00\00\00\00\00"  ;; summary
  "\00\00\00\00\00\00\00\00"  ;; interests
  "\00\00\00\00\00\00\00\00"  ;; settings
  "\00\00\00\00\00\00\00\00") ;; thresholds
(data (i32.const 0x450) "Bad Name")
(data (i32.const 0x470) "1.0.0")

(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 0x500) (i32.const 4)))
