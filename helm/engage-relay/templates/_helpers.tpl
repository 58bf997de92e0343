{{/* Names and labels. */}}

{{- define "engage-relay.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* 52 characters: a Job's pods, and a StatefulSet's label of its revision, add up to 11. */}}
{{- define "engage-relay.fullname" -}}
{{- $name := include "engage-relay.name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $whole | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* metadata of an object: dict root, and optionally component, suffix (of the name), namespace, labels,
     annotations. */}}
{{- define "engage-relay.metadata" -}}
name: {{ include "engage-relay.fullname" .root }}{{ .suffix }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- $own := include "engage-relay.labels" . | fromYaml }}
  {{- mergeOverwrite (dict) .root.Values.commonLabels (.labels | default dict) $own | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "engage-relay.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "engage-relay.selector" . }}
{{- end }}

{{/* Without a component: everything of the release, the hook's and the test's pods as well. */}}
{{- define "engage-relay.selector" -}}
app.kubernetes.io/name: {{ include "engage-relay.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* metadata of a pod: dict root, component, and optionally annotations. Without the chart's version: a new chart that
     changes nothing else is no reason to restart. */}}
{{- define "engage-relay.podMetadata" -}}
labels:
  {{- mergeOverwrite (dict) .root.Values.commonLabels .root.Values.podLabels (include "engage-relay.selector" . | fromYaml) | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations .root.Values.podAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "engage-relay.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "engage-relay.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "engage-relay.image" -}}
{{- with (.Values.global).imageRegistry | default .Values.image.registry }}{{ . }}/{{ end }}{{ .Values.image.repository -}}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "engage-relay.adminPort" -}}
{{- regexFind "[0-9]+$" .Values.config.admin.listen -}}
{{- end }}

{{/* A duration of the relay's configuration (500ms, 10s, 1m30s; a number is seconds) as seconds. */}}
{{- define "engage-relay.seconds" -}}
{{- if kindIs "string" . -}}
{{- $factors := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9.]+[a-z]*" . -1 -}}
{{- $seconds = addf $seconds (mulf (regexFind "^[0-9.]+" . | float64) (get $factors (regexFind "[a-z]+$" . | default "s"))) -}}
{{- end -}}
{{- $seconds -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}

{{/* How many may run at the most. */}}
{{- define "engage-relay.mostPods" -}}
{{- $scaling := .Values.scaling -}}
{{- ternary $scaling.maxReplicas .Values.replicas (or $scaling.keda.enabled $scaling.hpa.enabled) -}}
{{- end }}

{{/* The workload, as scalers name it. */}}
{{- define "engage-relay.target" -}}
apiVersion: apps/v1
kind: {{ .Values.workload }}
name: {{ include "engage-relay.fullname" . }}
{{- end }}

{{/* What a monitor's endpoint may say besides: of `monitoring.podMonitor` or `.serviceMonitor`. */}}
{{- define "engage-relay.endpoint" -}}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- if .honorLabels }}
honorLabels: true
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Not empty where there is the headless Service. */}}
{{- define "engage-relay.hasService" -}}
{{- if or .Values.service.enabled .Values.monitoring.serviceMonitor.enabled (eq .Values.workload "StatefulSet") }}yes{{ end }}
{{- end }}
