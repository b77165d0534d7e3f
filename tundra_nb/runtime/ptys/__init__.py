"""Pseudo-terminals: a bounded pool of them, their output as data, shells and dialogues.

    pool ── pty ── spawn          libc's posix_spawn, or ptyprocess where there is no Linux
             │  ── reader         two epolls, so that a flood does not delay a key press
             │  ── mask           known secrets never reach ring or transcript
             │  ── ring           the last MiB; sequence number = byte offset
             │  ── transcript     all of it, on disk, with an index of times and sizes
             │  ── keyboard       bounded queue of input
             └─ reap, processes   who belongs to a session, and how all of them end
    record                        what to end when daemon and guard were both killed
    shell, expect                 what is built on a PTY

Apart from the rest because everything here is about processes of other people's programs, and because `fcntl`,
`termios` and `pty` exist only on Unix. May import `errors`, `types`, `settings`, `runtime.clock`. Never providers,
history or anything above the runtime. `processes` imports the standard library only: the daemon's guard shares it.
"""
