#!/usr/bin/env bash
# MLflow server for a cluster, in the background, behind a password: mlflow_server.sh [ADDRESS] [PORT] [FOLDER]
#
# ADDRESS is an address of this machine on the private network (default: the first one). Requests for other hosts are
# rejected. The user is admin; the password is created once and never leaves the machine: it is in FOLDER/password, and
# in MLflow's own credentials file for jobs on this machine. If the server is already running, the script does nothing.
set -euo pipefail
address=${1:-$(hostname --all-ip-addresses | cut --delimiter=' ' --fields=1)}
port=${2:-5000}
folder=${3:-$HOME/mlflow}
mark="# written by mlflow_server.sh"
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

umask 077
mkdir --parents "$folder/artifacts" "$HOME/.mlflow"
[[ -s $folder/password ]] || python -c 'import secrets; print(secrets.token_urlsafe(24))' >"$folder/password"
[[ -s $folder/secret_key ]] || python -c 'import secrets; print(secrets.token_urlsafe(48))' >"$folder/secret_key"
credentials=$HOME/.mlflow/credentials
if [[ -e $credentials ]] && ! grep --quiet "$mark" "$credentials"; then
  echo "$credentials belongs to another server and was not changed; this server's password is in $folder/password" >&2
else
  printf '%s\n[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = %s\n' \
    "$mark" "$(<"$folder/password")" >"$credentials"
fi
printf '[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///%s/users.db\nadmin_username = admin\nadmin_password = %s\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n' \
  "$folder" "$(<"$folder/password")" >"$folder/auth.ini"

# After a reboot the process id may belong to another process.
if [[ -s $folder/pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$(<"$folder/pid")/cmdline" | grep --quiet "mlflow.*server"; then
  exit 0
fi
MLFLOW_AUTH_CONFIG_PATH=$folder/auth.ini MLFLOW_FLASK_SERVER_SECRET_KEY=$(<"$folder/secret_key") \
  nohup mlflow server --app-name basic-auth --workers 1 --host "$address" --port "$port" \
  --allowed-hosts "$address:$port,localhost:$port,127.0.0.1:$port" \
  --backend-store-uri "sqlite:///$folder/mlflow.db" --artifacts-destination "$folder/artifacts" \
  >>"$folder/server.log" 2>&1 </dev/null &
echo $! >"$folder/pid"
