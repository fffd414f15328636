# The heartbeat policy's rule on an online workspace, one verdict per candidate.
package sprag

import rego.v1

verdicts := [verdict(candidate) | some candidate in input.candidates]

verdict(candidate) := "runtime-wedged" if {
	degrades(candidate)
	input.cause.runtime_state == "wedged"
} else := "error-rate-high" if {
	degrades(candidate)
	not input.cause.native_status
	input.cause.error_rate >= input.settings["degrade-at"]
} else := "abstain"

degrades(candidate) if {
	candidate == "degraded"
	input.workspace.status == "online"
}
