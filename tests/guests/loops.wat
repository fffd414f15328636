;; Never answers.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (loop $again (br $again))
  unreachable)
