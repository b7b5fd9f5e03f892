#!/usr/bin/env bash
# MLflow server for a cluster, in the background, behind a password: mlflow_server.sh [ADDRESS] [PORT] [FOLDER]
#
# ADDRESS is an address of this machine on the private network (default: the first one). Requests for other hosts are
# rejected. The user is admin; the password is created once and never leaves the machine: it is in FOLDER/password, and
# in MLflow's own credentials file for jobs on this machine. A server that already runs there is left as it is. The
# script fails if that one has another address or port than those given, or if the new one cannot start.
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
if [[ -s $folder/pid ]] && running=$(tr '\0' ' ' 2>/dev/null <"/proc/$(<"$folder/pid")/cmdline" | grep "mlflow.*server"); then
  # Without arguments nobody asks for another address: the machine's first one may have changed since, as with a VPN.
  [[ (-z ${1:-} || $running == *" --host $address "*) && (-z ${2:-} || $running == *" --port $port "*) ]] && exit 0
  echo "MLflow already runs with other options ($running); to change them, stop it first: kill $(<"$folder/pid")" >&2
  exit 1
fi
# The server itself would find out only once it has started in the background.
python -c 'import socket, sys
address, port = sys.argv[1:]
try:
    socket.create_server((address, int(port)), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
except OSError as error:
    reason = error.strerror.partition(" (")[0]
    sys.exit(f"MLflow cannot listen at {address}:{port} ({reason}): give others with mlflow_server.sh ADDRESS PORT")' "$address" "$port"
echo "starting MLflow at $address:$port ..."
MLFLOW_AUTH_CONFIG_PATH=$folder/auth.ini MLFLOW_FLASK_SERVER_SECRET_KEY=$(<"$folder/secret_key") \
  nohup mlflow server --app-name basic-auth --workers 1 --host "$address" --port "$port" \
  --allowed-hosts "$address:$port,localhost:$port,127.0.0.1:$port" \
  --backend-store-uri "sqlite:///$folder/mlflow.db" --artifacts-destination "$folder/artifacts" \
  >>"$folder/server.log" 2>&1 </dev/null &
server=$!
echo "$server" >"$folder/pid"
for _ in {1..30}; do  # it imports for seconds
  sleep 1
  if ! kill -0 "$server" 2>/dev/null; then
    tail --lines=3 "$folder/server.log" >&2
    echo "MLflow did not start; see $folder/server.log" >&2
    exit 1
  fi
  (: <>"/dev/tcp/$address/$port") 2>/dev/null && exit 0
done
echo "MLflow does not answer yet; see $folder/server.log"
