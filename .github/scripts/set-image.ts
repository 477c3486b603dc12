/**
 * Names the image that the gke overlay deploys, and commits that: the step between a pushed image and a synced cluster.
 *
 *   node .github/scripts/set-image.ts 1.2.3@sha256:... [--push | --pull-request]
 *   node .github/scripts/set-image.ts --name      prints the image's name, without a tag
 *
 * --push puts the commit on the branch that is checked out, however often others push meanwhile; --pull-request proposes
 * it from the branch `deploy/image` instead (with `gh`, for a protected main). Running it again changes nothing.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

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

function main([image = '', publish = '', ...rest]: string[]) {
  if (!['', '--push', '--pull-request'].includes(publish) || rest.length > 0)
    fail('usage: set-image.ts TAG@sha256:DIGEST [--push | --pull-request] | --name')
  const root = run('git', 'rev-parse', '--show-toplevel')
  const git = (...args: string[]) => run('git', '-C', root, ...args)
  if (image === '--name') return console.log(only(readFileSync(join(root, OVERLAY), 'utf8'), 'newName'))
  const subject = `deploy(gke): users-api ${image.split('@')[0]}`

  /** Commits the image on what is checked out; false where it is there already. */
  const commit = () => {
    const file = join(root, OVERLAY)
    const before = readFileSync(file, 'utf8')
    const after = setImage(before, image)
    if (after === before) return false
    writeFileSync(file, after)
    git('commit', '--quiet', `--message=${subject}`, `--message=Image: ${image}`, '--', OVERLAY)
    return true
  }

  const push = () => {
    const branch = git('symbolic-ref', '--short', 'HEAD')
    for (let attempt = 1; ; attempt++) {
      git('fetch', '--quiet', 'origin', branch)
      git('merge', '--quiet', '--ff-only', 'FETCH_HEAD')
      if (!commit()) return false
      try {
        git('push', '--quiet', 'origin', `HEAD:refs/heads/${branch}`)
        return true
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
    if (!commit()) return false
    // One open proposal at most: a newer image replaces the one that waits.
    git('push', '--quiet', '--force', 'origin', `HEAD:refs/heads/${PROPOSAL}`)
    const listed = run('gh', ...`pr list --head ${PROPOSAL} --base ${base} --json number,isCrossRepository`.split(' '))
    // A fork's branch of the same name is listed, too.
    const open = (JSON.parse(listed) as PullRequest[]).find(({ isCrossRepository }) => !isCrossRepository)
    const text = ['--title', subject, '--body', `Image: \`${image}\``]
    if (open) run('gh', 'pr', 'edit', `${open.number}`, ...text)
    else run('gh', 'pr', 'create', '--head', PROPOSAL, '--base', base, ...text)
    return true
  }

  const changed = publish === '--push' ? push() : publish === '--pull-request' ? propose() : commit()
  console.log(changed ? subject : `${OVERLAY} names ${image} already: nothing to do`)
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
