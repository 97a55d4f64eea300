/* What TypeScript's own types of a page lack. */

/** Only in workers: https://fs.spec.whatwg.org/#api-filesystemsyncaccesshandle */
interface FileSystemSyncAccessHandle {
  write(bytes: ArrayBufferView<ArrayBuffer>, options: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface FileSystemFileHandle {
  createSyncAccessHandle(): Promise<FileSystemSyncAccessHandle>;
  /** Within the private file system; another file of the name is replaced. */
  move(name: string): Promise<void>;
}
