;; A setting whose default is not a number.
;; include memory.inc
;; include verdicts.inc
(func (export "sprag:policy/about@1.0.0#describe") (result i32) (i32.const 1024))
(data (i32.const 1024)
  "\50\04\00\00\05\00\00\00"  ;; name
  "\70\04\00\00\05\00\00\00"  ;; version
  "\50\04\00\00\00\00\00\00"  ;; summary
  "\00\00\00\00\00\00\00\00"  ;; interests
  "\00\06\00\00\01\00\00\00"  ;; settings
  "\00\00\00\00\00\00\00\00") ;; thresholds
(data (i32.const 0x450) "guest")
(data (i32.const 0x470) "1.0.0")
;; One setting, a number: name, summary, tag 1, padding, value.
(data (i32.const 0x600)
  "\50\06\00\00\09\00\00\00" "\50\06\00\00\00\00\00\00"
  "\01\00\00\00\00\00\00\00" "\00\00\00\00\00\00\f8\7f")
(data (i32.const 0x650) "threshold")
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 0x500) (i32.const 4)))
