{{/*
The relay's configuration file: `config`, where the secrets' files are, and the name that stands for all pods.

A secret's file lies at /run/secrets/engage-relay/engage/{connection}, .../kafka/{property} or .../registry/{key}.
librdkafka itself reads the properties that end in `.location`; of the others the relay does, by `{property}.file`.
*/}}

{{- define "engage-relay.configFile" -}}
{{- $config := omit (deepCopy .Values.config) "routes" -}}
{{- range $name, $secret := .Values.secrets.engage -}}
{{- with get $config.engage.connections $name }}{{ $_ := set . "api_key_file" (printf "/run/secrets/engage-relay/engage/%s" $name) }}{{ end -}}
{{- end -}}
{{- range $property, $secret := .Values.secrets.kafka -}}
{{- $name := ternary $property (printf "%s.file" $property) (hasSuffix ".location" $property) -}}
{{- $_ := set $config.kafka $name (printf "/run/secrets/engage-relay/kafka/%s" $property) -}}
{{- end -}}
{{- range $key, $secret := .Values.secrets.registry -}}
{{- with $config.registry }}{{ $_ := set . $key (printf "/run/secrets/engage-relay/registry/%s" $key) }}{{ end -}}
{{- end -}}
{{- if and (include "engage-relay.hasService" .) (not (hasKey ($config.admin | default dict) "instances")) -}}
{{- $url := printf "http://%s:%s" (include "engage-relay.fullname" .) (include "engage-relay.adminPort" .) -}}
{{- $_ := set $config "admin" (merge (dict "instances" (list $url)) ($config.admin | default dict)) -}}
{{- end -}}
{{ toYaml $config }}
{{- with .Values.config.routes }}
routes:
  {{- range . }}
  {{- $rule := omit . "name" }}
  {{ .name | quote }}:
    {{- ternary "null" (toYaml $rule) (empty $rule) | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The key in its secret of each of `secrets.kafka`: the one that is written, else Strimzi's. */}}
{{- define "engage-relay.kafkaSecretKeys" -}}
{{- $strimzi := dict "sasl.password" "password" "ssl.ca.location" "ca.crt" "ssl.certificate.location" "user.crt" "ssl.key.location" "user.key" "ssl.keystore.location" "user.p12" "ssl.keystore.password" "user.password" -}}
{{- range $property, $secret := .Values.secrets.kafka }}
{{ $property }}: {{ $secret.key | default (get $strimzi $property) | quote }}
{{- end }}
{{- end }}

{{/* All secrets in one volume. */}}
{{- define "engage-relay.secretsVolume" -}}
{{- $keys := include "engage-relay.kafkaSecretKeys" . | fromYaml -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $secret := .Values.secrets.engage }}
      - secret:
          name: {{ $secret.existingSecret }}
          items: [{key: {{ $secret.key | default "api-key" | quote }}, path: {{ printf "engage/%s" $name | quote }}}]
      {{- end }}
      {{- range $property, $secret := .Values.secrets.kafka }}
      - secret:
          name: {{ $secret.existingSecret }}
          items: [{key: {{ get $keys $property | quote }}, path: {{ printf "kafka/%s" $property | quote }}}]
      {{- end }}
      {{- range $key, $secret := .Values.secrets.registry }}
      - secret:
          name: {{ $secret.existingSecret }}
          items: [{key: {{ $secret.key | quote }}, path: {{ printf "registry/%s" $key | quote }}}]
      {{- end }}
{{- end }}

{{/* Not empty where there are secrets to mount. */}}
{{- define "engage-relay.hasSecrets" -}}
{{- if or .Values.secrets.engage .Values.secrets.kafka .Values.secrets.registry }}yes{{ end }}
{{- end }}
