import { ReplctlError } from '../errors.ts'

/**
 * The top folder of an ext4 file system holds `lost+found`. initdb and pg_basebackup refuse to fill such a folder, whether it
 * is to be the data directory, pg_wal or a tablespace.
 * @see PostgreSQL's src/port/pgcheckdir.c
 */
export function holdsLostFound(node: string, path: string, setting: 'data_dir' | 'pg_wal'): ReplctlError {
  const below = `${path}/${setting === 'data_dir' ? 'data' : 'pg_wal'}`
  return new ReplctlError('foreign-data-directory', `${path} on ${node} holds lost+found`, {
    detail: 'It is the top folder of a file system. initdb and pg_basebackup fill only what is wholly empty.',
    hint:
      setting === 'data_dir'
        ? `Set data_dir to a folder below it: ${below}`
        : `Make a folder below it, owned by the OS user, and let the link pg_wal lead there: ${below}`,
    node,
  })
}
