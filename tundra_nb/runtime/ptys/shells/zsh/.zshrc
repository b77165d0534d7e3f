# Read by `zsh` with ZDOTDIR set to this folder: takes cells from descriptor 9, as `../bashrc` describes. The loop runs
# while this file is read. When ^C or an error ends that, zsh prompts with mark B and is told to read this file again.
__tundra_code=$?
if [[ -z ${__tundra_session-} ]]; then
  IFS= builtin read -r -d $'\0' -u 9 __tundra_session
  unset HISTFILE ZDOTDIR
  setopt ignore_eof
  setopt prompt_subst
  unsetopt zle prompt_cr prompt_sp beep bang_hist
  # by name: a cell that prints $PS1 must not look as if the shell prompted
  __tundra_prompt=$'\e]133;B;t='$__tundra_session$'\a'
  PS1='%{$__tundra_prompt%}' PS2= RPS1=
  __tundra_word=
  __tundra_last=
  __tundra_options=
  __tundra_blank=$'^([[:space:]]|#[^\n]*(\n|$))*$'
  __tundra_end() {
    __tundra_code=$1 __tundra_options=
    [[ ! -o xtrace ]] || __tundra_options+=x
    [[ ! -o verbose ]] || __tundra_options+=v
    if [[ -n $__tundra_word ]]; then builtin printf '\e]133;D;%s;t=%s\a' "$1" "$__tundra_word" >/dev/tty; fi
    __tundra_word=
  }
  __tundra_read() {
    emulate -L zsh
    local first= text= second=
    while :; do
      IFS= builtin read -r -d $'\0' -u 9 second || builtin exit 0
      if [[ ${#first} == 16 && $first == "$second" ]]; then
        if [[ $first != "$__tundra_last" ]]; then break; fi
        first= text=
      else
        first=$text text=$second
      fi
    done
    __tundra_word=$first __tundra_last=$first __tundra_cell=$text
    if [[ $text =~ $__tundra_blank ]]; then __tundra_cell=:; fi
    builtin printf '\e]133;C;t=%s\a' "$__tundra_word" >/dev/tty
  }
  __tundra_begin() {
    [[ -o errexit ]] || return $__tundra_code
  }
else
  command stty echo </dev/tty
fi
builtin printf '\e]133;A;t=%s\a' "$__tundra_session" >/dev/tty
{ __tundra_end $__tundra_code; builtin set +xv; } 2>/dev/null
while __tundra_read; do
  # tracing is switched here and not in a function: zsh gives it back when a function returns
  builtin eval "{ [[ -z '$__tundra_options' ]] || builtin set -$__tundra_options; __tundra_begin; } 2>/dev/null
$__tundra_cell" 9<&-
  { __tundra_end $?; builtin set +xv; } 2>/dev/null
done
