{{/*
What the relay's pods, the topics hook's and the test's have in common.
*/}}

{{/* dict root, serviceAccountName */}}
{{- define "engage-relay.podSpec" -}}
serviceAccountName: {{ .serviceAccountName }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "priorityClassName" "runtimeClassName" "dnsPolicy" }}
{{- with get $.root.Values $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- range $key := list "dnsConfig" "hostAliases" }}
{{- with get $.root.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .root.Values.extraInitContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Of a pod that is no relay: on the same nodes, and near or far from nobody. */}}
{{- define "engage-relay.nodeAffinity" -}}
{{- with .Values.affinity.nodeAffinity }}
affinity:
  nodeAffinity:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* dict root, name, args (a list), and optionally env (a list) */}}
{{- define "engage-relay.container" -}}
name: {{ .name }}
image: {{ include "engage-relay.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [engage-relay]
args: {{ toJson .args }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .root.Values.resources | nindent 2 }}
env:
  {{- /* So that a command that somebody runs in the pod (docs/runbook.md) has the relay's own configuration. */}}
  - {name: ENGAGE_RELAY_CONFIG, value: /etc/engage-relay/relay.yaml}
  {{- with concat (.env | default list) .root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/engage-relay, readOnly: true}
  {{- if include "engage-relay.hasSecrets" .root }}
  - {name: secrets, mountPath: /run/secrets/engage-relay, readOnly: true}
  {{- end }}
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* dict root, configMap (its name) */}}
{{- define "engage-relay.volumes" -}}
- name: config
  configMap:
    name: {{ .configMap }}
{{- if include "engage-relay.hasSecrets" .root }}
{{ include "engage-relay.secretsVolume" .root }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
