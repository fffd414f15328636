;; Well behaved; interested in heartbeats of online workspaces of kind `workspace`.
;; include memory.inc
;; include verdicts.inc
(func (export "sprag:policy/about@1.0.0#describe") (result i32) (i32.const 1024))
(data (i32.const 1024)
  "\50\04\00\00\06\00\00\00"  ;; name
  "\70\04\00\00\05\00\00\00"  ;; version
  "\50\04\00\00\00\00\00\00"  ;; summary
  "\00\06\00\00\01\00\00\00"  ;; interests
  "\00\00\00\00\00\00\00\00"  ;; settings
  "\00\00\00\00\00\00\00\00") ;; thresholds
(data (i32.const 0x450) "narrow")
(data (i32.const 0x470) "1.0.0")
;; One interest: the hook and padding, then causes, statuses and kinds.
(data (i32.const 0x600)
  "\00\00\00\00" "\20\06\00\00\01\00\00\00" "\21\06\00\00\01\00\00\00" "\28\06\00\00\01\00\00\00")
(data (i32.const 0x620) "\01\02")
(data (i32.const 0x628) "\30\06\00\00\09\00\00\00" "workspace")
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 0x500) (i32.const 4)))
