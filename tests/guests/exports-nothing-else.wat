;; Says who it is and exports no hook.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
