/**
 * Names the image that the gke overlay deploys, and commits that: the step between a pushed image and a synced cluster.
 *
 *   node .github/scripts/set-image.ts 1.2.3@sha256:... [--push | --pull-request] [--of COMMIT]
 *   node .github/scripts/set-image.ts --name      prints the image's name, without a tag
 *
 * --push puts the commit on the branch that is checked out, however often others push meanwhile; --pull-request proposes
 * it from the branch `deploy/image` instead (with `gh`, for a protected main). Running it again changes nothing.
 *
 * --of is for a version's tag: COMMIT is what the image was built from. A pre-release, and a version that the branch has
 * moved on from, change nothing either: production would go back.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const OVERLAY = 'kustomize/overlays/gke/kustomization.yaml'
const PROPOSAL = 'deploy/image'
const PUSH_ATTEMPTS = 5
const TAG_AND_DIGEST = /^(\w[\w.-]{0,127})@(sha256:[0-9a-f]{64})$/

type PullRequest = { number: number; isCrossRepository: boolean }

const fail = (message: string): never => {
  throw new Error(message)
}

/** The kustomization with its one image set to `tag@digest`. Every other character, comments included, stays. */
export function setImage(kustomization: string, image: string) {
  const [, tag, digest] = TAG_AND_DIGEST.exec(image) ?? fail(`"${image}" is not TAG@sha256:DIGEST`)
  only(kustomization, 'newTag')
  return (
    kustomization
      // `kustomize edit` writes the keys in the alphabet's order, the digest first.
      .replace(/^( *- )digest:.*\n +/m, '$1')
      .replace(/^ +digest:.*\n/m, '')
      // Quoted: a tag such as 1.0 would be a number.
      .replace(/^( +)newTag:.*$/m, `$1newTag: '${tag}'\n$1digest: ${digest}`)
  )
}

/** The value of a key that the kustomization must have once. */
function only(kustomization: string, key: string) {
  const [match, ...others] = [...kustomization.matchAll(new RegExp(`^ +${key}: *(.*)$`, 'gm'))]
  return match?.[1] && others.length === 0 ? match[1] : fail(`${OVERLAY} must have exactly one ${key}`)
}

function main(args: string[]) {
  const {
    values,
    positionals: [image = ''],
  } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      name: { type: 'boolean' },
      push: { type: 'boolean' },
      'pull-request': { type: 'boolean' },
      of: { type: 'string' },
    },
  })
  const root = run('git', 'rev-parse', '--show-toplevel')
  const git = (...args: string[]) => run('git', '-C', root, ...args)
  if (values.name) return console.log(only(readFileSync(join(root, OVERLAY), 'utf8'), 'newName'))
  const [tag = ''] = image.split('@')
  const subject = `deploy(gke): users-api ${tag}`

  /** The last commit that changed more than which image is deployed. */
  const source = (commit: string) => git('log', '-1', '--format=%H', commit, '--', '.', `:(exclude)${OVERLAY}`)

  /** Why a version is not to be deployed. */
  const heldBack = (of: string) => {
    if (tag.includes('-')) return `${tag} is published and not deployed: it is a pre-release`
    if (source(of) !== source('HEAD')) return `${tag} is published and not deployed: the branch is at another commit`
  }

  /** Commits the image on what is checked out; otherwise returns why not. */
  const commit = () => {
    const file = join(root, OVERLAY)
    const before = readFileSync(file, 'utf8')
    const after = setImage(before, image)
    if (after === before) return `${OVERLAY} names ${image} already: nothing to do`
    const reason = values.of && heldBack(values.of)
    if (reason) return reason
    writeFileSync(file, after)
    git('commit', '--quiet', `--message=${subject}`, `--message=Image: ${image}`, '--', OVERLAY)
  }

  const push = () => {
    const branch = git('symbolic-ref', '--short', 'HEAD')
    for (let attempt = 1; ; attempt++) {
      git('fetch', '--quiet', 'origin', branch)
      git('merge', '--quiet', '--ff-only', 'FETCH_HEAD')
      const reason = commit()
      if (reason) return reason
      try {
        git('push', '--quiet', 'origin', `HEAD:refs/heads/${branch}`)
        return
      } catch (error) {
        if (attempt === PUSH_ATTEMPTS) throw error
        // Somebody pushed since the fetch: set the image again, on top of theirs.
        git('reset', '--quiet', '--keep', 'HEAD^')
      }
    }
  }

  const propose = () => {
    const base = git('symbolic-ref', '--short', 'HEAD')
    git('switch', '--quiet', '--force-create', PROPOSAL)
    const reason = commit()
    if (reason) return reason
    // One open proposal at most: a newer image replaces the one that waits.
    git('push', '--quiet', '--force', 'origin', `HEAD:refs/heads/${PROPOSAL}`)
    const listed = run('gh', ...`pr list --head ${PROPOSAL} --base ${base} --json number,isCrossRepository`.split(' '))
    // A fork's branch of the same name is listed, too.
    const open = (JSON.parse(listed) as PullRequest[]).find(({ isCrossRepository }) => !isCrossRepository)
    const text = ['--title', subject, '--body', `Image: \`${image}\``]
    if (open) run('gh', 'pr', 'edit', `${open.number}`, ...text)
    else run('gh', 'pr', 'create', '--head', PROPOSAL, '--base', base, ...text)
  }

  const reason = values.push ? push() : values['pull-request'] ? propose() : commit()
  console.log(reason ?? subject)
}

function run(command: string, ...args: string[]) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim()
}

if (import.meta.main) {
  try {
    main(process.argv.slice(2))
  } catch (error) {
    console.error(`set-image: ${error instanceof Error ? error.message : error}`)
    process.exitCode = 1
  }
}
