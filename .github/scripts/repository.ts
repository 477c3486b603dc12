/** A clone of a bare repository in a temporary folder, for tests of the scripts. */
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'

const ROOT = join(import.meta.dirname, '../..')
export const OVERLAY = 'kustomize/overlays/gke/kustomization.yaml'

/** Its main has one commit, `seed`, with the overlay and package.json of this project. */
export function makeRepository() {
  const folder = mkdtempSync(join(tmpdir(), 'scripts-'))
  const origin = join(folder, 'origin.git')
  const clone = join(folder, 'clone')
  const bin = join(folder, 'bin')
  const calls = join(folder, 'calls')
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    PATH: `${bin}${delimiter}${process.env.PATH}`,
    // Nothing of the developer's own git settings (hooks, signing) takes part.
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_CONFIG_SYSTEM: '/dev/null',
    GIT_AUTHOR_NAME: 'test',
    GIT_AUTHOR_EMAIL: 'test@example.com',
    GIT_COMMITTER_NAME: 'test',
    GIT_COMMITTER_EMAIL: 'test@example.com',
    GITHUB_REPOSITORY: 'you/users-api',
    // What a script leaves goes with the folder.
    TMPDIR: folder,
  }
  const run = (cwd: string, command: string, ...args: string[]) =>
    execFileSync(command, args, { cwd, encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'pipe'] }).trim()
  const git = (...args: string[]) => run(clone, 'git', ...args)

  run(folder, 'git', 'init', '--quiet', '--bare', '--initial-branch=main', origin)
  run(folder, 'git', 'clone', '--quiet', origin, clone)
  for (const file of [OVERLAY, 'package.json']) {
    mkdirSync(join(clone, dirname(file)), { recursive: true })
    cpSync(join(ROOT, file), join(clone, file))
  }
  git('add', '.')
  git('commit', '--quiet', '--message=seed')
  git('push', '--quiet', 'origin', 'main')

  return {
    folder,
    origin,
    clone,
    git,
    /** What a script of this folder prints, run in the clone. */
    script: (name: string, ...args: string[]) =>
      run(clone, process.execPath, join(ROOT, '.github/scripts', name), ...args),
    /** A commit on main, pushed; its hash. */
    commit(file: string, content = file) {
      git('pull', '--quiet', 'origin', 'main')
      writeFileSync(join(clone, file), content)
      git('add', '.')
      git('commit', '--quiet', `--message=${file}`)
      git('push', '--quiet', 'origin', 'main')
      return git('rev-parse', 'HEAD')
    },
    /** A program in place of the real one. What it is called with goes to `calls`, before its body in sh runs. */
    stub(name: string, body: string) {
      mkdirSync(bin, { recursive: true })
      writeFileSync(join(bin, name), `#!/bin/sh\necho "${name} $*" >>${calls}\n${body}\n`, { mode: 0o755 })
    },
    /** How the stubs were called, one line each. */
    calls: () => (existsSync(calls) ? readFileSync(calls, 'utf8').trim().split('\n') : []),
    remove: () => rmSync(folder, { recursive: true }),
  }
}
