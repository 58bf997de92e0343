{{/*
The addresses that `config` names, for the network policy.
*/}}

{{/* Comma-separated `host:port`, host with brackets where it is IPv6: brokers, Engages or
their proxies, who gives OAuth tokens, and the Schema Registry. */}}
{{- define "engage-relay.addresses" -}}
{{- $found := list -}}
{{- range without (regexSplit "[,\\s]+" (get .Values.config.kafka "bootstrap.servers") -1) "" -}}
{{- $address := regexReplaceAll "^[A-Za-z_]+://" . "" -}}
{{- $found = append $found (ternary $address (printf "%s:9092" $address) (regexMatch ":[0-9]+$" $address)) -}}
{{- end -}}
{{- $urls := list -}}
{{- range $name, $connection := .Values.config.engage.connections -}}
{{- $proxy := get $connection "proxy" | default "none" -}}
{{- $urls = append $urls (ternary $connection.base_url $proxy (eq $proxy "none")) -}}
{{- end -}}
{{- with get .Values.config.kafka "sasl.oauthbearer.token.endpoint.url" -}}{{- $urls = append $urls . -}}{{- end -}}
{{- with .Values.config.registry -}}
{{- $urls = concat $urls (without (regexSplit "[,\\s]+" .url -1) "") -}}
{{- end -}}
{{- range $urls -}}
{{- $url := urlParse . -}}
{{- $port := ternary "80" "443" (eq $url.scheme "http") -}}
{{- $found = append $found (ternary $url.host (printf "%s:%s" $url.host $port) (regexMatch ":[0-9]+$" $url.host)) -}}
{{- end -}}
{{- $found | uniq | sortAlpha | join "," -}}
{{- end }}

{{/* The rule of a policy's `egress` for one `host:port`. */}}
{{- define "engage-relay.egressTo" -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}
{{- $namespace := regexFind "\\.[^.]+\\.svc(\\.|$)" $host -}}
- ports: [{protocol: TCP, port: {{ regexFind "[0-9]+$" . }}}]
{{- if $namespace }}
  to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ index (splitList "." $namespace) 1 }}}}}]
{{- else if contains ":" $host }}
  to: [{ipBlock: {cidr: "{{ $host }}/128"}}]
{{- else if regexMatch "^[0-9]+(\\.[0-9]+){3}$" $host }}
  to: [{ipBlock: {cidr: {{ $host }}/32}}]
{{- else if not (contains "." $host) }}
  to: [{podSelector: {}}]
{{- end }}
{{- end }}
