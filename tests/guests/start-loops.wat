;; Never ends its start function.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(func $start (loop $again (br $again)))
(start $start)
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  unreachable)
