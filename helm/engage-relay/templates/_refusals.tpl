{{/*
The chart refuses values that cannot work before it installs anything. It names all of them at once, each with its reason.
*/}}

{{- define "engage-relay.refusals" -}}
{{- $wrong := list -}}
{{- $config := .Values.config -}}
{{- $kafka := $config.kafka -}}
{{- $secrets := .Values.secrets -}}

{{- if not (get $kafka "bootstrap.servers") -}}
{{- $wrong = append $wrong "config.kafka.\"bootstrap.servers\": say where your brokers are" -}}
{{- end -}}
{{- if not $config.engage.connections -}}
{{- $wrong = append $wrong "config.engage.connections: name at least one, such as `default: {base_url: https://acme.voyado.com}`" -}}
{{- end -}}

{{- range $name, $connection := $config.engage.connections -}}
{{- $url := $connection.base_url | default "" -}}
{{- $local := regexMatch "^http://(localhost|127[.][0-9.]+|\\[::1\\])(:|/|$)" ($url | lower) -}}
{{- if and (hasPrefix "http://" ($url | lower)) (not $local) (not $connection.allow_insecure) -}}
{{- $wrong = append $wrong (printf "config.engage.connections.%s.base_url: must be https: over plain http anybody on the way reads the API key (allow_insecure: true)" $name) -}}
{{- end -}}
{{- if regexMatch "/api(/|$)" $url -}}
{{- $wrong = append $wrong (printf "config.engage.connections.%s.base_url: must end before /api/v3, which the relay adds" $name) -}}
{{- end -}}
{{- end -}}

{{- /* Secrets: not in values, and not missing. */ -}}
{{- range $name, $connection := $config.engage.connections -}}
{{- $key := hasKey $secrets.engage $name -}}
{{- if $connection.api_key -}}
{{- $wrong = append $wrong (printf "config.engage.connections.%s.api_key: a key does not belong in values; name its secret: secrets.engage.%s.existingSecret" $name $name) -}}
{{- else if not (or $key $connection.api_key_file) -}}
{{- $wrong = append $wrong (printf "secrets.engage.%s.existingSecret: missing, the connection has no key (or mount one yourself and set its api_key_file)" $name) -}}
{{- else if and $key $connection.api_key_file -}}
{{- $wrong = append $wrong (printf "config.engage.connections.%s.api_key_file and secrets.engage.%s: write one of them" $name $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $secret := $secrets.engage -}}
{{- if not (hasKey $config.engage.connections $name) -}}
{{- $wrong = append $wrong (printf "secrets.engage.%s: config.engage.connections has no such connection" $name) -}}
{{- end -}}
{{- end -}}
{{- range $property, $_ := $kafka -}}
{{- if and (regexMatch "password|passphrase|secret|key[.]pem$|oauthbearer[.]config" $property) (not (hasSuffix ".file" $property)) -}}
{{- $wrong = append $wrong (printf "config.kafka.%q: a secret does not belong in values; name it in secrets.kafka, or mount a file" $property) -}}
{{- end -}}
{{- end -}}
{{- range $name, $connection := $config.engage.connections -}}
{{- if regexMatch "//[^/]*@" ($connection.proxy | default "") -}}
{{- $wrong = append $wrong (printf "config.engage.connections.%s.proxy: a password does not belong in values; set HTTPS_PROXY by extraEnv, from a Secret" $name) -}}
{{- end -}}
{{- end -}}
{{- $registry := $config.registry | default dict -}}
{{- range $key := list "password" "token" -}}
{{- if hasKey $registry $key -}}
{{- $wrong = append $wrong (printf "config.registry.%s: a secret does not belong in values; name it in secrets.registry.%s_file" $key $key) -}}
{{- end -}}
{{- end -}}
{{- range $key, $_ := $secrets.registry -}}
{{- if not $registry -}}
{{- $wrong = append $wrong (printf "secrets.registry.%s: there is no config.registry that uses it" $key) -}}
{{- else if hasKey $registry $key -}}
{{- $wrong = append $wrong (printf "config.registry.%s and secrets.registry.%s: write one of them" $key $key) -}}
{{- end -}}
{{- end -}}
{{- range $property, $secret := $secrets.kafka -}}
{{- if or (hasKey $kafka $property) (hasKey $kafka (printf "%s.file" $property)) -}}
{{- $wrong = append $wrong (printf "config.kafka.%q and secrets.kafka.%q: write one of them" $property $property) -}}
{{- end -}}
{{- end -}}
{{- $protocol := get $kafka "security.protocol" | default "plaintext" | lower -}}
{{- $mechanism := get $kafka "sasl.mechanism" | default (get $kafka "sasl.mechanisms") | default "GSSAPI" | upper -}}
{{- $sasl := hasPrefix "sasl" $protocol -}}
{{- $tls := hasSuffix "ssl" $protocol -}}
{{- if and $sasl (or (eq $mechanism "PLAIN") (hasPrefix "SCRAM-" $mechanism)) -}}
{{- if not (or (hasKey $secrets.kafka "sasl.password") (hasKey $kafka "sasl.password.file")) -}}
{{- $wrong = append $wrong (printf "secrets.kafka.\"sasl.password\".existingSecret: missing, %s needs a password" $mechanism) -}}
{{- end -}}
{{- if not (get $kafka "sasl.username") -}}
{{- $wrong = append $wrong (printf "config.kafka.\"sasl.username\": missing, %s needs a user" $mechanism) -}}
{{- end -}}
{{- end -}}
{{- range $property, $secret := $secrets.kafka -}}
{{- if not (ternary $sasl $tls (hasPrefix "sasl." $property)) -}}
{{- $wrong = append $wrong (printf "secrets.kafka.%q: config.kafka.\"security.protocol\" is %s, which does not use it" $property $protocol) -}}
{{- end -}}
{{- end -}}
{{- if ne (hasKey $secrets.kafka "ssl.certificate.location") (hasKey $secrets.kafka "ssl.key.location") -}}
{{- $wrong = append $wrong "secrets.kafka: ssl.certificate.location and ssl.key.location go together" -}}
{{- end -}}

{{- /* Pods would fence each other. */ -}}
{{- range $property := list "group.instance.id" "transactional.id" -}}
{{- if hasKey $kafka $property -}}
{{- $wrong = append $wrong (printf "config.kafka.%q: must differ from pod to pod; leave it out, and for static membership set workload: StatefulSet" $property) -}}
{{- end -}}
{{- end -}}

{{- /* Probes and Prometheus come from outside. */ -}}
{{- if or (regexMatch "^(127[.]|localhost:|\\[::1\\]:)" $config.admin.listen) (not (regexMatch ":[1-9][0-9]*$" $config.admin.listen)) -}}
{{- $wrong = append $wrong "config.admin.listen: must be a port that probes can reach, such as 0.0.0.0:8080" -}}
{{- end -}}

{{- /* Routes keep their order. */ -}}
{{- if not (kindIs "slice" $config.routes) -}}
{{- $wrong = append $wrong "config.routes: must be a list, each with a `name`: Helm sorts a mapping's keys, and the order of routes matters" -}}
{{- else -}}
{{- $names := list -}}
{{- range $config.routes -}}{{- $names = append $names .name -}}{{- end -}}
{{- if ne (len $names) (len (uniq $names)) -}}
{{- $wrong = append $wrong "config.routes: two of them have the same name" -}}
{{- end -}}
{{- end -}}

{{- /* A stop: 25 s, or a hand-over and 4 s for what is committed after it; and 2 s more at the most for the journal. A
       hand-over: the longest request and a second. A request: twice its time-out T, an action: T/2 and its action_timeout.
       See "Time-outs" in ARCHITECTURE.md. */ -}}
{{- $drain := 25.0 -}}
{{- range $name, $connection := $config.engage.connections -}}
{{- $timeout := include "engage-relay.seconds" ($connection.timeout | default 10.0) | float64 -}}
{{- $action := include "engage-relay.seconds" ($connection.action_timeout | default 30.0) | float64 -}}
{{- $drain = maxf $drain (addf (maxf (mulf 2.0 $timeout) (addf (divf $timeout 2.0) $action)) 1.0 4.0) -}}
{{- end -}}
{{- $drain = addf $drain 2.0 | ceil | int -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) $drain -}}
{{- $wrong = append $wrong (printf "terminationGracePeriodSeconds: must be at least %d: with the connections' time-outs, the requests in flight of a stopping pod take this long; if Kubernetes kills the pod earlier, their actions are in doubt" $drain) -}}
{{- end -}}

{{- /* Scaling and monitoring. */ -}}
{{- $scaling := .Values.scaling -}}
{{- if and $scaling.keda.enabled $scaling.hpa.enabled -}}
{{- $wrong = append $wrong "scaling: keda and hpa would fight over the number of pods: enable only one of them" -}}
{{- end -}}
{{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
{{- $wrong = append $wrong "scaling.maxReplicas: must not be below scaling.minReplicas" -}}
{{- end -}}
{{- if and $scaling.hpa.enabled (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- $wrong = append $wrong "scaling.hpa: needs resources.requests.cpu, because it scales on a percentage of it" -}}
{{- end -}}
{{- if and $scaling.keda.enabled $sasl (not (or (eq $mechanism "PLAIN") (hasPrefix "SCRAM-" $mechanism))) (not $scaling.keda.authenticationRef) -}}
{{- $wrong = append $wrong (printf "scaling.keda.authenticationRef: missing, the chart cannot make one for %s" $mechanism) -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- $wrong = append $wrong "monitoring: podMonitor and serviceMonitor would scrape everything twice: enable one of them" -}}
{{- end -}}

{{- $known := dict -}}
{{- range (.Files.Get "files/rules.yaml" | fromYaml).groups -}}{{- range .rules -}}{{- if .alert -}}{{- $_ := set $known .alert .expr -}}{{- end -}}{{- end -}}{{- end -}}
{{- range $name, $own := .Values.monitoring.prometheusRule.alerts -}}
{{- if not (hasKey $known $name) -}}
{{- $wrong = append $wrong (printf "monitoring.prometheusRule.alerts: there is no alert %s" $name) -}}
{{- else if and (hasKey $own "threshold") (not (and (regexMatch "[<>]=? [0-9.]+$" (get $known $name)) (eq 1 (len (regexFindAll "[<>=]=? [0-9.]+" (get $known $name) -1))))) -}}
{{- $wrong = append $wrong (printf "monitoring.prometheusRule.alerts.%s.threshold: the alert does not compare with one number; leave it out (disabled) and write your own" $name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.monitoring.prometheusRule.disabled -}}
{{- if not (hasKey $known .) -}}
{{- $wrong = append $wrong (printf "monitoring.prometheusRule.disabled: there is no alert %s" .) -}}
{{- end -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\nThese values cannot work:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end }}
